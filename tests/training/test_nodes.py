"""Where machines meet, by what SLURM says; what it says must fit what was asked for."""

import os
import re
from pathlib import Path

import pytest
from toy import SMOKE

from selftrans.commands import main
from selftrans.errors import UserError
from selftrans.training.nodes import PORTS, Meeting


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The first task of a step on two machines."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_", "RANK"))]:
        monkeypatch.delenv(name)
    said = {"JOB_ID": "71", "STEP_ID": "0", "PROCID": "0", "STEP_NODELIST": "localhost,other"}
    for name, value in (said | {"STEP_NUM_NODES": "2", "STEP_NUM_TASKS": "2"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return monkeypatch


def test_all_tasks_of_a_step_meet_at_its_first_node(task: pytest.MonkeyPatch) -> None:
    first = Meeting.of_slurm(2)
    assert (first.name, first.nodes, first.host, first.first, first.here) == ("71.0", 2, "localhost", True, "localhost")
    task.setenv("SLURM_PROCID", "1")
    second = Meeting.of_slurm(2)
    assert (second.name, second.host, second.port, second.first) == (first.name, first.host, first.port, False)
    assert second.here in ("127.0.0.1", "::1")  # the way to the first


def test_steps_meet_apart(task: pytest.MonkeyPatch) -> None:
    found = {Meeting.of_slurm(2)}
    for name, value in (("SLURM_STEP_ID", "1"), ("SLURM_JOB_ID", "72"), ("SLURM_JOB_ID", "20071")):
        task.setenv(name, value)
        found.add(Meeting.of_slurm(2))
    assert len({meeting.name for meeting in found}) == len({meeting.port for meeting in found}) == 4
    assert all(meeting.port in PORTS for meeting in found)


@pytest.mark.parametrize(
    ("nodes", "launched", "master", "host"),
    [
        ("127.0.0.[7-9,12]", "127.0.0.1", None, "127.0.0.7"),
        ("127.0.0.[2,4],localhost", None, None, "127.0.0.2"),
        ("localhost", "127.0.0.1", None, "localhost"),
        ("nowhere[1-2].invalid", "127.0.0.1", None, "127.0.0.1"),  # as nodes are called, and no machine
        ("nowhere[1-2].invalid", "127.0.0.1", "127.0.0.3", "127.0.0.3"),
    ],
)
def test_the_first_node_is_found(
    task: pytest.MonkeyPatch, nodes: str, launched: str | None, master: str | None, host: str
) -> None:
    task.setenv("SLURM_STEP_NODELIST", nodes)
    for name, value in (("SLURM_LAUNCH_NODE_IPADDR", launched), ("MASTER_ADDR", master)):
        if value is not None:
            task.setenv(name, value)
    assert Meeting.of_slurm(2).host == host


def test_a_first_node_without_address_is_refused(task: pytest.MonkeyPatch) -> None:
    task.setenv("SLURM_STEP_NODELIST", "nowhere[1-2].invalid")
    with pytest.raises(UserError, match=re.escape("but nowhere1.invalid is no address here; set MASTER_ADDR")):
        Meeting.of_slurm(2)


@pytest.mark.parametrize(
    ("arguments", "missing", "words"),
    [
        (
            (),
            "SLURM_STEP_NUM_TASKS",
            "found 2, but SLURM_STEP_NUM_NODES=2, SLURM_STEP_NUM_TASKS=; start a task on each",
        ),
        (("--nodes", "4"), None, "found 4, but SLURM_STEP_NUM_NODES=2, SLURM_STEP_NUM_TASKS=2; start a task on each"),
        (("--ranks", "7"), None, "found 2; allowed: divisors of the number of ranks (7)"),
        (("--ranks", "1"), None, "found 2; allowed: divisors of the number of ranks (1)"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(
    task: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    missing: str | None,
    words: str,
) -> None:
    task.chdir(tmp_path)
    if missing is not None:
        task.delenv(missing)
    given = ("train", "vanilla@10", "--ranks", "4", "--nodes", "2", *arguments, "--config", str(SMOKE))
    assert main(given) == 2
    assert capsys.readouterr().err.startswith(f"error: --nodes: {words}")
