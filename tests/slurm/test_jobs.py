"""The workflow on a cluster, through its profile: whatever ends a job, what comes out is that of a local run."""

import contextlib
import csv
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from cluster import Cluster
from conftest import Configuration

from selftrans.artifacts import load_tensors
from selftrans.commands import main
from selftrans.config.reading.project import load_project
from selftrans.leases import holders
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from workflow import REPOSITORY, SMOKE

pytestmark = pytest.mark.slurm

IMPATIENT = Path(__file__).parent / "impatient.py"


def snakemake(
    cluster: Cluster, folder: Path, *arguments: str, config: Path, options: Sequence[str] = (), **settings: int
) -> subprocess.Popen[bytes]:
    """The README's call on a login node, at work in ``folder``, with what an emulated cluster needs besides.

    GPUs are given by SLURM, and are none: the work goes to the CPU.
    """
    said = [f"{key}={value}" for key, value in settings.items()]
    command = [
        *(sys.executable, str(IMPATIENT), "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)),
        *("--workflow-profile", str(REPOSITORY / "profiles/slurm"), "--slurm-status-command", "squeue"),
        *("--latency-wait", "10", *options, "--config", f"folder={config}", *said, "--", *arguments),
    ]
    # Bytecode is cached whatever the shell says: without it, importing torch takes twice as long.
    environment = {name: value for name, value in cluster.environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with (folder / "snakemake.out").open("a") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def ends(process: subprocess.Popen[bytes], folder: Path, seconds: float = 300) -> str:
    """What it said, when it has ended well."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    said = (folder / "snakemake.out").read_text()
    assert process.poll() == 0, f"{said}\nlogs:\n{logs(folder)}"
    return said


def logs(folder: Path) -> str:
    """What the jobs in ``folder`` have said."""
    return "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(folder.glob("results/*/logs/*/*.log")))


@pytest.fixture
def started():
    """Snakemakes that the test starts, none of which outlives it."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def afterwards(cluster: Cluster):
    """All nodes are up, and nothing runs on them."""
    yield
    cluster.run("scancel", f"--user={os.getuid()}")
    for node, state in cluster.states().items():
        if state.startswith("down"):
            cluster.bring_up(node)
    until(lambda: not cluster.run("squeue", "--noheader"))


def until(condition, seconds=180, process=None, output=None):
    """Wait until it is so, or fail; also if ``process`` has ended before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output and output.read_text()
        time.sleep(0.05)
    return found


# ------------------------------------------------------------------------------------------ a whole table


@pytest.fixture(scope="module")
def toy_table5(tmp_path_factory) -> Path:
    """The paper's configuration at toy size, all rows of Table 5 trained to their first milestone."""
    config = shutil.copytree(REPOSITORY / "config", tmp_path_factory.mktemp("table5") / "config")
    shutil.copy(SMOKE / "scales/smoke.yaml", config / "scales")
    for name in ("claims.yaml", "compute.yaml", "figures.yaml"):  # of other tables, and of later milestones
        (config / name).unlink()
    (config / "config.yaml").write_text("scale: smoke\nseeds: 1\nclaim_seeds: 1\n")
    tables = yaml.safe_load((config / "tables.yaml").read_text())
    table = tables["table5"]
    table["compare_with"] = table["compare_with"].replace("@80", "@10")
    table["rows"] = [row | {"run": row["run"].replace("@80", "@10")} for row in table["rows"]]
    (config / "tables.yaml").write_text(yaml.safe_dump(tables, sort_keys=False, allow_unicode=True))
    return config


def make_here(config: Path, folder: Path) -> None:
    """Table 5 by its verbs, in this process."""

    def verb(*arguments: str) -> None:
        assert main([*arguments, "--config", str(config), "--threads", "1"]) == 0

    plan = Plan(load_project(config))
    rows = [plan.milestone(row.run, 0) for row in plan.project.tables["table5"].rows]
    teachers = [run.teacher for run, _ in rows]
    with contextlib.chdir(folder):
        for split in ("train", "test"):
            verb("pack-images", "--family", "sit256", "--split", split)
        for name in ("train-tokenizer", "extract-latents", "train-extractor", "make-reference", "train-encoder"):
            verb(name, "--family", "sit256")
        for teacher in teachers:
            at = f"{teacher.run.name}@{teacher.run.milestones[teacher.step]}"
            if not plan.weights(teacher.run, teacher.step).exists():
                verb("train", at)
            if not plan.teacher_file(teacher).exists():
                verb("freeze-teacher", at, "--layer", str(teacher.layer))
        for row in plan.project.tables["table5"].rows:
            verb("train", row.run)
            verb("sample", row.run, "--preset", "headline")
            verb("evaluate", row.run, "--preset", "headline")
        verb("table", "table5")


def test_table_5_is_that_of_a_local_run(cluster, started, folder, toy_table5, tmp_path):
    started.append(snakemake(cluster, folder, "results/table5.csv", config=toy_table5, options=("--jobs", "6")))
    (tmp_path / "here").mkdir()
    make_here(toy_table5, tmp_path / "here")
    ends(started[0], folder, 600)
    table = folder / "results/table5.csv"
    assert len(list(csv.DictReader(table.open()))) == 18
    assert table.read_bytes() == (tmp_path / "here/results/table5.csv").read_bytes()
    weights = [path.relative_to(folder) for path in folder.glob("results/smoke/runs/sit-b2-st*/*.ema.safetensors")]
    assert len(weights) == 18
    for path in weights:
        assert same(folder / path, tmp_path / "here" / path)


# ---------------------------------------------------------------------------------- what ends one training


def same(one: Path, other: Path) -> bool:
    """Whether two files of weights hold the same bits."""
    first, second = load_tensors(one, "weights")[0], load_tensors(other, "weights")[0]
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(configuration, folder with what one row is trained on, its weights after a training that nothing ended)."""
    configuration = Configuration(tmp_path_factory.mktemp("configuration") / "config")
    configuration.family |= {"steps_per_epoch": 400, "milestones": [2]}
    configuration.rows = {"plain": configuration.rows["plain"]}
    configuration.tables["main"] |= {"rows": [{"label": "vanilla", "run": "plain@2"}], "compare_with": None}
    configuration.tables["main"]["columns"] = []
    configuration.paper = "fid,is\n38.60,41.95\n"
    config = configuration.write()
    folder, whole = tmp_path_factory.mktemp("prepared") / "it", tmp_path_factory.mktemp("whole") / "it"
    folder.mkdir()
    common = ("--config", str(config), "--threads", "1")
    with contextlib.chdir(folder):
        for step in (("pack-images", "--split", "train"), ("pack-images", "--split", "test")):
            assert main([*step, "--family", "small", *common]) == 0
        for step in ("train-tokenizer", "extract-latents"):
            assert main([step, "--family", "small", *common]) == 0
    shutil.copytree(folder, whole)
    with contextlib.chdir(whole):
        assert main(["train", "plain@2", *common]) == 0
    return config, folder, whole


class Training:
    """The one job of a workflow on the cluster, and what can be seen of it from outside."""

    def __init__(self, cluster: Cluster, config: Path, folder: Path) -> None:
        self.cluster, self.config, self.folder = cluster, config, folder
        plan = Plan(load_project(config))
        run, step = plan.milestone("plain@2", 0)
        self.target = plan.weights(run, step)
        self.work = folder / plan.path(Pattern.work, run=run.id)
        self.log = folder / plan.root / f"logs/train/{run.id}.step-{step}.log"

    def start(self, **settings: int) -> subprocess.Popen[bytes]:
        return snakemake(self.cluster, self.folder, str(self.target), config=self.config, **settings)

    def said(self, words: str) -> re.Match[str] | None:
        """What the job that writes the log says."""
        return re.search(words, self.log.read_text()) if self.log.exists() else None

    def logged(self) -> int:
        """How many lines of steps there are."""
        log = self.work / "log.jsonl"
        return log.read_text().count("\n") if log.exists() else 0

    def jobs(self) -> dict[str, str]:
        """{id: state} of all jobs that were submitted from this folder, in their order."""
        found = self.cluster.run("squeue", "--states=all", "--noheader", "--sort=i", "--format=%i %T %Z")
        words = [line.split() for line in found.splitlines()]
        return {job: state for job, state, place in words if place == str(self.folder)}

    def begin(self, job: str) -> None:
        """Have a job that SLURM has put back begin, which by itself would wait two minutes.

        SLURM sets that time when the last of its nodes has let go of the job, which may be after it has become pending.
        """

        def begun() -> bool:
            with contextlib.suppress(subprocess.CalledProcessError):  # which has begun meanwhile
                self.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
            return self.jobs()[job] not in ("PENDING", "COMPLETING")

        until(begun)

    def hold(self, scheduler: subprocess.Popen[bytes], after: str = "") -> tuple[str, psutil.Process]:
        """The job ``after`` that one, and its training, which stands still from some steps after its beginning.

        So it is never too fast for the test. SLURM wakes whom it sends a signal.
        """
        output = self.folder / "snakemake.out"

        def holder() -> dict[str, Any] | None:
            found = (holder.about for holder in holders(self.work))
            return next((about for about in found if about["job"] != after), None)

        about = until(holder, 300, process=scheduler, output=output)
        steps = self.logged()
        until(lambda: self.logged() > steps, process=scheduler, output=output)
        process = psutil.Process(about["pid"])
        process.suspend()
        return about["job"], process


@pytest.fixture
def training(cluster, prepared, tmp_path):
    config, folder, _ = prepared
    return Training(cluster, config, shutil.copytree(folder, tmp_path / "selftrans"))


def going_on(training: Training, step: int = 0) -> int:
    """The step that the present job goes on from, which is after ``step``."""
    found = int(training.said(r"going on from step (\d+)")[1])
    assert found > step
    return found


def test_time_up_then_scancel_then_a_lost_node(cluster, training, started, prepared):
    """Each ends the training's job, and the next one goes on."""
    # The profile asks for a warning five minutes before, which comes within the first one, up to 60 s early.
    started.append(training.start(wall_time=6))
    first, _ = training.hold(started[0])
    second, _ = training.hold(started[0], after=first)
    cluster.run("scontrol", "update", f"JobId={second}", "TimeLimit=UNLIMITED")
    step = going_on(training)
    assert training.jobs() == {first: "FAILED", second: "RUNNING"}
    cluster.run("scancel", second)

    third, process = training.hold(started[0], after=second)
    step = going_on(training, step)
    assert training.jobs()[second] == "CANCELLED"
    node = cluster.run("squeue", "--noheader", "--format=%N", f"--jobs={third}").strip()
    cluster.take_down(node)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    until(lambda: training.jobs()[third] == "PENDING")
    training.begin(third)
    ends(started[0], training.folder)
    assert going_on(training, step - 1) == step
    assert training.jobs() == {first: "FAILED", second: "CANCELLED", third: "COMPLETED"}
    assert same(training.folder / training.target, prepared[2] / training.target)


def test_two_nodes_train_as_two_ranks_of_one(cluster, training, started, prepared):
    """Stopped in time, and once more by the loss of a node, without the first of its ranks."""
    whole = training.folder.parent / "whole"
    shutil.copytree(prepared[1], whole)
    alone = [sys.executable, "-m", "selftrans", "train", "plain@2", "--ranks", "2", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    subprocess.run([*alone, "--config", str(training.config)], cwd=whole, env=environment, check=True)

    started.append(training.start(ranks=2, nodes=2))
    first, process = training.hold(started[0])
    assert cluster.run("squeue", "--noheader", "--format=%D %N", f"--jobs={first}").split() == ["2", "n[1-2]"]
    cluster.run("scancel", "--signal=USR1", first)  # as when the time is nearly up
    process.resume()

    second, _ = training.hold(started[0], after=first)
    step = going_on(training)
    cluster.take_down("n2")
    until(lambda: training.jobs()[second] == "PENDING")
    cluster.bring_up("n2")
    training.begin(second)
    ends(started[0], training.folder)
    assert going_on(training, step - 1) == step
    assert training.jobs() == {first: "FAILED", second: "COMPLETED"}
    target = training.target.relative_to(training.folder) if training.target.is_absolute() else training.target
    assert same(training.folder / target, whole / target)


def test_a_killed_scheduler_is_started_again_while_its_job_runs(cluster, training, started, prepared):
    """The second job waits for the first, which nothing has told; there are never two writers."""
    started.append(training.start())
    first, process = training.hold(started[0])
    started[0].kill()
    started[0].wait()
    unlock = [sys.executable, "-m", "selftrans", "unlock"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    assert subprocess.run(unlock, cwd=training.folder, env=environment).returncode == 0
    started.append(training.start())
    waiting = rf"is held by process {process.pid} on \S+ \(SLURM job {first}\); waiting"
    until(lambda: training.said(waiting), process=started[1], output=training.folder / "snakemake.out")
    process.resume()
    ends(started[1], training.folder)
    assert list(training.jobs().values()) == ["COMPLETED", "COMPLETED"]
    assert same(training.folder / training.target, prepared[2] / training.target)


def test_sigterm_to_the_scheduler_cancels_its_jobs_which_save(cluster, training, started, prepared):
    started.append(training.start())
    first, _ = training.hold(started[0])
    started[0].terminate()
    assert started[0].wait(120) != 0
    assert training.jobs()[first] in ("CANCELLED", "COMPLETING")
    until(lambda: training.said("stopped: plain seed 0 by SIGTERM"))
    started.append(training.start())
    ends(started[1], training.folder)
    assert going_on(training)
    assert same(training.folder / training.target, prepared[2] / training.target)


def test_what_is_to_be_put_right_first_is_tried_once(cluster, training, started):
    """Latents of another VAE than the configuration's, say."""
    stats = next(training.folder.glob("results/tiny/latents/*/stats.json"))
    stats.write_text(stats.read_text().replace('"key"', '"other key"'))
    started.append(training.start())
    assert started[0].wait(120) != 0
    assert "error: " in training.log.read_text()
    assert list(training.jobs().values()) == ["FAILED"]
