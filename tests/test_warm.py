"""Jobs that a loaded server's copies do: what they say, write and end with is what they would by themselves."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import Configuration

from selftrans import warm
from selftrans.artifacts import load_tensors
from selftrans.commands import main
from selftrans.leases import held
from selftrans.plan.paths import Pattern
from workflow import REPOSITORY

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no server here")

STARTS = "from selftrans import warm; import os; warm.start(8); print(os.environ[warm.ADDRESS], flush=True); input()"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Configuration, Path]:
    """A configuration, and a folder with the latents of its row."""
    configuration = Configuration(tmp_path_factory.mktemp("configuration") / "config")
    configuration.family |= {"milestones": [2]}
    configuration.rows = {"plain": configuration.rows["plain"]}
    configuration.tables["main"] |= {"rows": [{"label": "vanilla", "run": "plain@2"}], "compare_with": None}
    configuration.tables["main"]["columns"] = []
    configuration.paper = "fid,is\n38.60,41.95\n"
    common = ("--config", str(configuration.write()), "--threads", "1")
    folder = tmp_path_factory.mktemp("prepared")
    with contextlib.chdir(folder):
        for verb in (("pack-images", "--split", "train"), ("pack-images", "--split", "test")):
            assert main([*verb, "--family", "small", *common]) == 0
        for verb in ("train-tokenizer", "extract-latents"):
            assert main([verb, "--family", "small", *common]) == 0
    return configuration, folder


@pytest.fixture
def folder(prepared: tuple[Configuration, Path], tmp_path: Path) -> Path:
    return shutil.copytree(prepared[1], tmp_path / "copy")


@pytest.fixture(scope="module")
def starter() -> Iterator[subprocess.Popen[str]]:
    """A process that has started a server; its first line of output is the server's address."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STARTS], env=environment, **pipes) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def address(starter: subprocess.Popen[str]) -> str:
    return starter.stdout.readline().strip()


@pytest.fixture(scope="module")
def server(starter: subprocess.Popen[str], address: str) -> psutil.Process:
    (found,) = psutil.Process(starter.pid).children()
    return found


def job(address: str, prepared: tuple[Configuration, Path], folder: Path, *verb: str) -> subprocess.Popen[str]:
    """``selftrans <verb>``, at work in ``folder``, and said to print what it imports itself."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SELFTRANS_CONFIG": str(prepared[0].folder)}
    command = [sys.executable, "-X", "importtime", "-m", "selftrans", *verb, *warm.ONE_THREAD]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment | {warm.ADDRESS: address}, **pipes)


def loaded(error: str) -> set[str]:
    """The modules of selftrans that a job has imported itself."""
    names = [line.rpartition("|")[2].strip() for line in error.splitlines() if line.startswith("import time:")]
    return {name for name in names if name.startswith("selftrans")}


def said(error: str) -> str:
    """Standard error without imports."""
    return "".join(line for line in error.splitlines(keepends=True) if not line.startswith("import time:"))


def test_a_training_is_done_by_a_copy_and_comes_out_the_same(address, prepared, folder):
    configuration, _ = prepared
    started = job(address, prepared, folder, "train", "plain@2")
    output, error = started.communicate(timeout=120)
    assert (started.returncode, output, said(error)) == (0, "plain seed 0: starting\n", "")
    assert "selftrans.warm" in loaded(error)
    assert "selftrans.commands" not in loaded(error)
    plan = configuration.plan()
    weights = plan.weights(*plan.milestone("plain@2", 0))
    with contextlib.chdir(prepared[1]):
        assert main(["train", "plain@2", "--config", str(configuration.folder), "--threads", "1"]) == 0
    one, other = load_tensors(folder / weights, "weights")[0], load_tensors(prepared[1] / weights, "weights")[0]
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_an_error_ends_it_as_by_itself(address, prepared, folder):
    for verb in (("train", "nothing@2"), ("train",)):
        ends = []
        for place in (address, "nowhere"):
            started = job(place, prepared, folder, *verb)
            _, error = started.communicate(timeout=60)
            ends.append((started.returncode, said(error)))
            assert ("selftrans.commands" in loaded(error)) == (place == "nowhere")
        assert ends[0] == ends[1]
        assert ends[0][0] == 2


def test_a_copy_has_no_file_open_but_its_own(waiting):
    _, copy = waiting
    opened = [str(path.readlink()) for path in Path(f"/proc/{copy.pid}/fd").iterdir() if int(path.name) > 2]
    assert not [name for name in opened if name.startswith(("socket:", "pipe:", "anon_inode:"))]


def test_jobs_of_more_threads_load_for_themselves(address, monkeypatch):
    monkeypatch.setenv(warm.ADDRESS, address)
    assert warm.ask(["train", "plain@2", "--threads", "2"]) is None
    assert warm.ask(["unlock"]) is None


@pytest.fixture
def waiting(address, prepared, folder, server) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """(a training that waits for another that has its folder, the copy that does it)."""
    plan = prepared[0].plan()
    run, _ = plan.milestone("plain@2", 0)
    with held(folder / plan.path(Pattern.work, run=run.id), "another"):
        started = job(address, prepared, folder, "train", "plain@2")
        assert "waiting" in started.stdout.readline()
        (copy,) = server.children()
        yield started, copy
    started.kill()
    started.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138), (signal.SIGINT, 130)])
def test_signals_are_passed_on(waiting, number, code):
    started, copy = waiting
    started.send_signal(number)
    _, error = started.communicate(timeout=30)
    assert started.returncode == code
    assert "stopped: " in said(error)
    assert gone(copy)


def test_a_job_that_is_killed_takes_its_copy_along(waiting):
    started, copy = waiting
    started.kill()
    started.wait()
    assert gone(copy)


def test_a_copy_that_is_killed_ends_the_job_the_same_way(waiting):
    started, copy = waiting
    copy.kill()
    started.communicate(timeout=30)
    assert started.returncode == -signal.SIGKILL


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, or does within some seconds."""
    deadline = time.monotonic() + 20
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_few_jobs_start_no_server(monkeypatch):
    monkeypatch.delenv(warm.ADDRESS, raising=False)
    before = psutil.Process().children()
    warm.start(warm.ENOUGH - 1)
    assert psutil.Process().children() == before
    assert warm.ADDRESS not in os.environ


def test_it_ends_with_whoever_started_it_and_jobs_then_load_for_themselves(
    starter, address, server, prepared, folder, monkeypatch
):
    plan = prepared[0].plan()
    run, _ = plan.milestone("plain@2", 0)
    with held(folder / plan.path(Pattern.work, run=run.id), "another"):
        started = job(address, prepared, folder, "train", "plain@2")
        assert "waiting" in started.stdout.readline()
        starter.kill()
        starter.wait()
        deadline = time.monotonic() + 20
        while Path(address).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(address).parent.exists()
        monkeypatch.setenv(warm.ADDRESS, address)
        assert warm.ask(["train", "plain@2", *warm.ONE_THREAD]) is None
        assert server.is_running()  # as long as it has a job
    started.communicate(timeout=60)
    assert started.returncode == 0
    assert gone(server)
