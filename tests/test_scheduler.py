"""A folder has one Snakemake, whatever it is called and whoever else lives there; a missing profile is said."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.jobs import Job
from strangers import CALLED, write_lease

from selftrans.commands import main
from selftrans.errors import UserError
from selftrans.leases import holders
from selftrans.scheduler import (
    FOLDER,
    SNAKEMAKES_LOCKS,
    check_profile,
    hold_folder,
    require_accounting,
    retry_what_goes_on,
)

ROOT = Path(__file__).parent.parent

# What a Snakemake does before its first job, with a job that outlives it.
HOLD = """
import subprocess, sys
from selftrans.scheduler import hold_folder

hold_folder()
subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print("mine", flush=True)
sys.stdin.read()
"""


def start(code):
    surroundings = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=surroundings, start_new_session=True, **pipes)


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """A lock of Snakemake's in the working directory, which is called as the repository may be."""
    folder = tmp_path / "selftrans"
    (folder / SNAKEMAKES_LOCKS).mkdir(parents=True)
    monkeypatch.chdir(folder)
    path = SNAKEMAKES_LOCKS / "0.output.lock"
    path.write_text("results/main.csv")
    return path


@pytest.fixture
def holder(lock):
    """A process that holds the working directory."""
    with start(HOLD) as process:
        assert process.stdout.readline() == "mine\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_the_lock_of_a_living_snakemake_stays(lock, holder, capsys):
    assert main(["unlock"]) == 2
    said = f"process {holder.pid} on {socket.gethostname()} is a snakemake at work here: wait for it to end, or stop it"
    assert said in capsys.readouterr().err
    assert lock.exists()


def test_the_lock_of_a_killed_snakemake_goes_though_its_jobs_live(lock, holder, capsys):
    holder.kill()
    holder.wait()
    os.killpg(holder.pid, 0)  # the job is there
    assert main(["unlock"]) == 0
    assert "removed the lock of a snakemake that was killed" in capsys.readouterr().out
    assert not lock.exists()


def test_who_else_lives_in_the_folder_does_not_matter(lock):
    """A reader of a log, whose command line says snakemake, and a verb at work."""
    Path("snakemake.log").touch()
    with subprocess.Popen(["tail", "-f", "snakemake.log"]) as reader, start("import selftrans; input()") as verb:
        assert main(["unlock"]) == 0
        reader.kill()
        verb.communicate("\n")
    assert not lock.exists()


def test_without_a_lock_nothing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["unlock"]) == 0
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_second_snakemake_is_refused(lock, holder, monkeypatch):
    monkeypatch.setattr("selftrans.scheduler.WAIT", 0.1)
    with pytest.raises(UserError, match=f"process {holder.pid} on .* is a snakemake at work here"):
        hold_folder()


def test_a_snakemake_of_another_machine_is_refused_when_it_beats(lock):
    path = write_lease(FOLDER)
    threading.Timer(0.5, write_lease, [FOLDER], {"beat": 1}).start()
    with pytest.raises(UserError, match=re.escape(f"{CALLED} is a snakemake at work here")):
        hold_folder()
    assert json.loads(path.read_text())["beat"] == 1


def test_a_snakemake_of_another_machine_that_is_dead_is_followed(lock):
    """What was killed there a second ago may live, for all that is known here."""
    write_lease(FOLDER)
    with start(HOLD.replace("hold_folder()", "hold_folder(patience=1)")) as process:
        said = f"{Path.cwd()} is held by {CALLED}; waiting for a sign of life, 1 seconds at most\n"
        assert [process.stdout.readline() for _ in range(2)] == [said, "mine\n"]
        assert [holder.about["pid"] for holder in holders(FOLDER)] == [process.pid]
        process.communicate("\n")
        assert holders(FOLDER) == []


def test_a_link_in_the_place_of_the_lease_is_not_written_through(lock, tmp_path, capsys):
    (tmp_path / "victim").write_text("precious")
    (FOLDER / "lease-1.json").symlink_to(tmp_path / "victim")
    assert main(["unlock"]) == 2
    assert ".snakemake/lease-1.json: a link, where a file is wanted" in capsys.readouterr().err
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_rule_calls_one_verb_which_takes_the_place_of_its_shell():
    """So a signal to Snakemake's children is one to verbs; what came after the first command would never run."""
    rules = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    commands = [found for text in rules for found in re.findall(r'    shell:\n((?: +".*"\n)+)', text)]
    assert len(commands) == sum(text.count("    shell:\n") for text in rules) > 10
    for command in commands:
        line = "".join(re.findall('"(.*)"', command))
        verb, _, log = line.partition(" > {log} ")
        assert re.fullmatch(r"(\{params\.srun\})?python -m selftrans [a-z-]+[^;&|]*", verb), line
        assert log == "2> >(tee -a {log} >&2)", line


# ------------------------------------------------------------------------------------------ profiles


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with a profile, seen from a folder with another."""
    for path in ("repository/profiles/default", "here/mine", "here/profiles/other"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "config.yaml").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("PWD")
    return tmp_path / "repository"


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n", "all"],
        ["--workflow-profile", "none"],
        ["--workflow-profile", "default", "-n"],
        ["--workflow-profile=mine", "all"],
        ["--cores", "2", "--workflow-profile", "other"],
        ["--cores", "2", "--", "--workflow-profile", "slurm"],
    ],
)
def test_a_profile_that_is_there_is_taken(root, arguments):
    check_profile(arguments, root)


@pytest.mark.parametrize("spelled", [["--workflow-profile", "profiles/pbs"], ["--workflow-profile=profiles/pbs"]])
def test_a_profile_that_is_not_there_is_said(root, spelled):
    with pytest.raises(UserError) as refused:
        check_profile(["--cores", "2", *spelled, "-n", "all"], root)
    assert str(refused.value) == (
        "--workflow-profile: found 'profiles/pbs', which is not there, and without it every job would run on this "
        "machine; allowed: none, profiles/default, or the path of a profile of your own"
    )


def test_a_profile_beside_the_caller_is_found_from_another_folder(root, monkeypatch):
    """With --directory, the folder that Snakemake was called from is known from the shell alone."""
    monkeypatch.setenv("PWD", str(Path.cwd()))
    monkeypatch.chdir(root)
    check_profile(["--directory", str(root), "--workflow-profile", "mine"], root)


# A workflow of one job, whose script is what a test wants.
ONE_JOB = """
import sys
from pathlib import Path

sys.path.insert(0, {root!r})
from selftrans.scheduler import retry_what_goes_on

onstart:
    retry_what_goes_on(lambda job: Path("progress"))


rule all:
    input:
        "done",


rule work:
    output:
        "done",
    log:
        "work.log",
    shell:
        "bash work.sh > {{log}} 2>&1"
"""


@pytest.mark.parametrize(
    ("script", "attempts", "made"),
    [
        ("exit 1", 1 + 2, False),  # without a word: as often as the call says
        ("echo 'error: config/runs.yaml: plain: found 1'; exit 2", 1, False),
        ("echo 'Traceback (most recent call last):'; echo 'ZeroDivisionError'; exit 1", 1, False),
        ("echo 'stopped: rank 0 of 2: another rank has ended'; exit 75", 1 + 2, False),
        # It goes on each time, and needs six times.
        ("date +%N > progress; test $(wc -l < attempts) = 6 && touch done || kill -9 $$", 6, True),
        # It goes on twice, and then no more.
        ("test $(wc -l < attempts) -gt 2 || date +%N > progress; kill -9 $$", 2 + 2, False),
    ],
)
def test_a_retry_is_for_what_goes_on(tmp_path, script, attempts, made):
    (tmp_path / "Snakefile").write_text(ONE_JOB.format(root=str(ROOT)))
    (tmp_path / "work.sh").write_text(f"echo once >> attempts; {script}\n")
    call = [sys.executable, "-m", "snakemake", "--cores", "1", "--retries", "2", "--quiet", "all"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "attempts").read_text().count("once") == attempts, done.stderr
    assert (done.returncode == 0) == made == (tmp_path / "done").exists()


@pytest.mark.parametrize(("age", "allowed"), [(0, 0), (3600, 2)])
def test_an_error_that_an_earlier_call_logged_is_not_this_ones(tmp_path, monkeypatch, age, allowed):
    """A job that dies with its machine has not begun its log anew."""
    monkeypatch.setattr(Job, "restart_times", Job.restart_times)
    retry_what_goes_on(lambda job: None)
    log = tmp_path / "work.log"
    log.write_text("error: config/runs.yaml: plain: found 1\n")
    os.utime(log, (time.time() - age,) * 2)

    class Failed:
        def __init__(self):
            self.log, self.attempt, self.rule = [str(log)], 1, SimpleNamespace(restart_times=2)

    assert Job.restart_times.fget(Failed()) == allowed


def test_accounting_that_does_not_answer_is_said(tmp_path, monkeypatch):
    """sacct exists on many machines whose SLURM has no accounting."""
    sacct = tmp_path / "sacct"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    class Settings:
        status_command = "sacct"

    for script, words in {
        "echo Slurm accounting storage is disabled >&2; exit 1": "is disabled",
        "exit 0": None,
    }.items():
        sacct.write_text(f"#!/bin/sh\n{script}\n")
        sacct.chmod(0o755)
        if words is None:
            require_accounting(Settings)
        else:
            with pytest.raises(UserError, match=f"sacct, which says: .*{words}; .*slurm-status-command: squeue"):
                require_accounting(Settings)
    Settings.status_command = "squeue"
    sacct.write_text("#!/bin/sh\nexit 1\n")
    require_accounting(Settings)
    require_accounting(None)  # no cluster
