"""Two callers, signals, kills: one Snakemake works in a folder, and what stops goes on with the same command."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import Configuration

from selftrans.commands import main
from selftrans.config.reading.project import load_project
from selftrans.leases import holders
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.training.trainer import STATE
from workflow import REPOSITORY, environment, snakemake, snakemake_command

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.xdist_group("workflow")]

HALF_A_MINUTE = 30.0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(configuration, folder): one row, whose training takes minutes, with its latents."""
    folder = tmp_path_factory.mktemp("prepared")
    configuration = Configuration(tmp_path_factory.mktemp("slow") / "config")
    configuration.family["steps_per_epoch"] = 10_000
    configuration.rows = {"plain": configuration.rows["plain"]}
    configuration.tables["main"] |= {"rows": [{"label": "vanilla", "run": "plain@2"}], "compare_with": None}
    configuration.tables["main"]["columns"] = []
    configuration.paper = "fid,is\n38.60,41.95\n"
    config = configuration.write()
    steps = [("pack-images", "--split", "train"), ("pack-images", "--split", "test")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for step in (*steps, ("train-tokenizer",), ("extract-latents",)):
            assert main([*step, "--family", "small", "--config", str(config), "--threads", "1"]) == 0
    return config, folder


class Training:
    """A folder in which the row is trained, and what can be seen of it from outside."""

    def __init__(self, config: Path, folder: Path) -> None:
        self.config, self.folder = config, folder
        plan = Plan(load_project(config))
        run, step = plan.milestone("plain@2", 0)
        self.target = str(plan.weights(run, step))
        self.work = folder / plan.path(Pattern.work, run=run.id)
        self.log = folder / plan.root / f"logs/train/{run.id}.step-{step}.log"

    def said(self, words: str) -> bool:
        """Whether the job's log says so."""
        return self.log.exists() and re.search(words, self.log.read_text()) is not None

    def steps(self) -> int:
        """How many lines of steps are logged."""
        return (self.work / "log.jsonl").read_text().count("\n") if (self.work / "log.jsonl").exists() else 0

    def is_free(self) -> bool:
        """Whether no process trains the run."""
        return not holders(self.work)


@pytest.fixture
def training(prepared, tmp_path):
    config, folder = prepared
    training = Training(config, shutil.copytree(folder, tmp_path / "selftrans"))
    yield training
    for process in psutil.process_iter(["cwd"]):  # none but what this test started works there
        if process.info["cwd"] == str(training.folder):
            process.kill()


def until(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start(command, folder):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True, **pipes)


def ends_in_time(process, told):
    """Its output, if it ends within half a minute after ``told`` (monotonic) with an error."""
    output, _ = process.communicate(timeout=HALF_A_MINUTE)
    assert time.monotonic() - told < HALF_A_MINUTE
    assert process.returncode not in (0, None)
    return output


def test_of_two_makes_at_once_one_works_and_sigterm_to_its_snakemake_ends_it(training):
    """In a folder that is called as the README's own clone is."""
    for name in ("Makefile", "Snakefile", "workflow", "selftrans", "profiles", "config"):
        (training.folder / name).symlink_to(REPOSITORY / name)
    config = f"CONFIG=folder={training.config} scale=tiny seeds=1 claim_seeds=1"
    snakemake_of_tests = f"SNAKEMAKE={Path(sys.executable).with_name('snakemake')}"
    make = ["make", snakemake_of_tests, "CORES=2", config, training.target]

    makes = [start(make, training.folder) for _ in range(2)]
    until(lambda: any(one.poll() is not None for one in makes), max(makes, key=lambda one: one.poll() is None))
    loser, winner = sorted(makes, key=lambda one: one.poll() is None)
    output = loser.communicate()[0]
    assert loser.returncode == 2, output
    assert re.search(r"is a snakemake at work here|Directory cannot be locked", output)
    until(training.steps, winner)

    (owner,) = holders(training.folder / ".snakemake")
    third = subprocess.run(make, cwd=training.folder, env=environment(), capture_output=True, text=True, check=False)
    assert third.returncode == 2
    assert f"{owner} is a snakemake at work here: wait for it to end, or stop it" in third.stderr + output
    rehearsal = snakemake("-n", "--", training.target, folder=training.folder, config=training.config)
    assert rehearsal.returncode == 0, rehearsal.stderr
    assert winner.poll() is None

    os.kill(owner.about["pid"], 15)
    told = time.monotonic()
    ends_in_time(winner, told)
    assert training.is_free()
    assert training.said(r"stopped: plain seed 0 by SIGTERM at step \d+; the same command goes on")
    assert (training.work / STATE).exists()
    assert not any((training.folder / ".snakemake/locks").glob("*"))

    again = start(make, training.folder)
    until(lambda: training.said(r"going on from step \d+"), again)
    (owner,) = holders(training.folder / ".snakemake")
    os.kill(owner.about["pid"], 15)
    ends_in_time(again, time.monotonic())


def test_the_jobs_of_a_killed_snakemake_go_on_and_the_next_one_waits_for_them(training):
    command = snakemake_command("--", training.target, folder=training.folder, config=training.config)
    first = start(command, training.folder)
    until(training.steps, first)
    (job,) = psutil.Process(first.pid).children()
    first.kill()
    first.wait()
    steps = training.steps()
    assert job.is_running()
    unlock = subprocess.run(
        [sys.executable, "-m", "selftrans", "unlock"],
        cwd=training.folder,
        env=environment() | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (unlock.returncode, unlock.stdout) == (0, "removed the lock of a snakemake that was killed\n")

    second = start(command, training.folder)
    until(lambda: training.said(f"plain-s0-.* is held by process {job.pid} on .*; waiting"), second)
    second.terminate()
    ends_in_time(second, time.monotonic())
    assert job.is_running()
    assert training.steps() > steps
    job.terminate()
    job.wait(HALF_A_MINUTE)
    assert (training.work / STATE).exists()

    third = start(command, training.folder)
    until(lambda: training.said(r"going on from step \d+"), third)
    third.terminate()
    ends_in_time(third, time.monotonic())


def test_a_missing_profile_stops_a_rehearsal_too(training):
    command = ("-n", "--workflow-profile", "profiles/pbs", "--", training.target)
    refused = snakemake(*command, folder=training.folder, config=training.config)
    assert refused.returncode == 1
    said = "--workflow-profile: found 'profiles/pbs', which is not there, and without it every job would run"
    assert said in refused.stdout + refused.stderr
