"""Several ranks take the steps of one; a killed one leaves nobody hanging; what does not fit is refused at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ranks
import torch
from ranks import ALONE, CASES
from strangers import CALLED, take_over
from toy import smoke_plan

from selftrans.artifacts import load_tensors
from selftrans.errors import UserError
from selftrans.leases import holders
from selftrans.training.distributed import Ranks

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def alone_and_together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders in which one process, and two, trained all cases."""
    alone, together = (tmp_path_factory.mktemp(name) for name in ("alone", "together"))
    port = ranks.free_port()
    command = (str(ROOT / "tests" / "ranks.py"), str(together))
    started = [ranks.start(rank, 2, port, *command, folder=ROOT) for rank in range(2)]
    ranks.train_cases(alone)
    for process in started:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, out + error
    return alone, together


def tensors(folder: Path, name: str, step: int = 12, kind: str = "ema") -> dict[str, torch.Tensor]:
    return load_tensors(folder / name / f"{step}.{kind}.safetensors", "weights")[0]


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_take_the_steps_of_one(name: str, alone_and_together: tuple[Path, Path]) -> None:
    """With micro-batches, groups and clipping; up to rounding, which twelve steps of 1e-3 would hide if it were not."""
    rounded = name == "rounded"  # to bfloat16, where noise decides the sign of a gradient that is zero
    for kind in () if rounded else ("ema", "online"):
        found = (tensors(folder, name, kind=kind) for folder in alone_and_together)
        torch.testing.assert_close(*found, rtol=1e-4, atol=2e-6)
    logs = [(folder / name / "log.jsonl").read_text().splitlines() for folder in alone_and_together]
    alone, together = ([json.loads(line) for line in lines] for lines in logs)
    assert [line["step"] for line in together] == [7, *([10] if name == "guided" else []), 12]
    for key in ("loss", "diffusion", "method", "gradient_norm"):
        mine, theirs = ([line[key] for line in lines] for lines in (alone, together))
        assert theirs == pytest.approx(mine, rel=0.02 if rounded else 1e-4)


def test_two_ranks_go_on_bit_for_bit(alone_and_together: tuple[Path, Path]) -> None:
    _, together = alone_and_together
    for kind in ("ema", "online"):
        whole, parts = (tensors(together, name, kind=kind) for name in ("guided", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_one_rank_goes_on_from_the_state_of_two(alone_and_together: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder that two left at step 7 is the same as if one had."""
    alone, together = alone_and_together
    first, second = (tensors(folder, "parts", step=7, kind="online") for folder in alone_and_together)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=2e-6)
    states = [load_tensors(folder / "parts" / "state.safetensors", "state") for folder in (alone, together)]
    assert states[0][0].keys() == states[1][0].keys()
    assert {key: value for key, value in states[0][1].items() if key not in ("sha256", "plain")} == {
        key: value for key, value in states[1][1].items() if key not in ("sha256", "plain")
    }


def test_the_order_of_sums_is_settled_before_the_first_step(alone_and_together: tuple[Path, Path]) -> None:
    """Of both objectives, with and without the method; else a third rank would go on to other roundings."""
    for rank in range(2):
        assert json.loads((alone_and_together[1] / f"rank-{rank}.json").read_text()) == [True, True]


# ----------------------------------------------------------------------------------------- how they end


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with latents; nothing that was started in it outlives the test."""
    ranks.make_latents(tmp_path)
    yield tmp_path
    for process in psutil.Process().children(recursive=True):
        process.kill()


def steps_in(folder: Path) -> int:
    logs = list(folder.glob("results/smoke/work/vanilla*/log.jsonl"))
    return len(logs[0].read_text().splitlines()) if logs else 0


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.02)


SAVING = ("vanilla@40", "--rank-timeout", "5", "--save-every", "0")


def launched(folder: Path) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """One command, and the two processes that it starts, once they have made some steps."""
    before = steps_in(folder)
    command = [sys.executable, *ranks.verb(*SAVING, "--ranks", "2")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command, cwd=folder, **pipes)
    wait_for(lambda: steps_in(folder) > before + 1)
    return started, psutil.Process(started.pid).children()


def two_nodes(folder: Path, step: str, *arguments: str, each: int = 1) -> list[subprocess.Popen]:
    """The tasks of a step of SLURM on two machines with ``each`` so many ranks."""
    command = ranks.verb(*arguments, "--ranks", str(2 * each), "--nodes", "2")
    return [ranks.start_task(task, 2, step, *command, folder=folder) for task in range(2)]


def two(folder: Path, *arguments: str) -> list[subprocess.Popen]:
    """Two processes that are told their ranks."""
    port = ranks.free_port()
    return [ranks.start(rank, 2, port, *ranks.verb(*arguments), folder=folder) for rank in range(2)]


@pytest.mark.long
def test_whatever_ends_a_rank_ends_all_and_the_same_command_goes_on(
    project: Path, alone_and_together: tuple[Path, Path]
) -> None:
    """The command is terminated, then one process killed, then one stopped for good; at last nothing happens."""
    started, _ = launched(project)
    started.terminate()
    out, error = started.communicate(timeout=60)
    assert (started.returncode, error) == (128 + signal.SIGTERM, ""), out + error
    assert re.search(r"stopped: .* by SIG\w+ at step \d+; the same command goes on", out)

    started, (_, second) = launched(project)
    second.kill()
    out, error = started.communicate(timeout=60)
    assert started.returncode == 128 + signal.SIGKILL, out + error
    assert re.search(r"stopped: rank . of 2: another rank has ended or does not answer \(.*\); the last state", error)

    before = steps_in(project)
    first, second = two(project, *SAVING)
    wait_for(lambda: steps_in(project) > before + 1)
    second.send_signal(signal.SIGSTOP)
    _, error = first.communicate(timeout=60)
    second.kill()
    second.communicate()
    assert first.returncode == os.EX_TEMPFAIL
    assert "stopped: rank 0 of 2: another rank has ended or does not answer (Timed out waiting 5000ms" in error

    assert 0 < steps_in(project) < 40
    ends = [process.communicate(timeout=120) for process in two(project, "vanilla@40")]
    assert "going on from step" in ends[0][0], ends
    assert ends[1] == ("", "")
    plan = smoke_plan()
    found, _ = load_tensors(project / plan.weights(plan.run("vanilla", 0), 40), "weights")
    whole = tensors(alone_and_together[1], "whole", step=40)
    assert all(torch.equal(found[key], whole[key]) for key in whole)


@pytest.mark.long
def test_ranks_whose_run_another_machine_has_taken_over_end_and_leave_it_alone(project: Path) -> None:
    """The first of them finds out, and the command ends as what is to be tried again."""
    started, _ = launched(project)
    (work,) = project.glob("results/smoke/work/vanilla*")
    stolen = take_over(work)
    out, error = started.communicate(timeout=60)
    assert started.returncode == os.EX_TEMPFAIL, out + error
    assert f"stopped: {work.name}: was taken over by {CALLED} while this one stood still; it goes on there" in error
    assert [holder.path for holder in holders(work)] == [stolen]
    assert not list(project.glob("results/smoke/runs/*/step-40*"))


@pytest.mark.long
def test_two_nodes_are_two_ranks_wherever_they_end(project: Path, alone_and_together: tuple[Path, Path]) -> None:
    """The one machine is killed, then the other; then one of them is told to end; at last nothing happens."""
    for number, lost in enumerate((0, 1)):
        before = steps_in(project)
        nodes = two_nodes(project, f"7.{number}", *SAVING)
        wait_for(lambda before=before: steps_in(project) > before + 1)
        children = psutil.Process(nodes[lost].pid).children()
        for process in (*children, nodes[lost]):
            process.kill()
        _, error = nodes[1 - lost].communicate(timeout=60)
        assert nodes[1 - lost].returncode == os.EX_TEMPFAIL, error
        assert re.search("^stopped: .*; the last state is kept, and the same command goes on from it$", error, re.M)

    before = steps_in(project)
    nodes = two_nodes(project, "7.2", *SAVING)
    wait_for(lambda: steps_in(project) > before + 1)
    nodes[1].send_signal(signal.SIGUSR1)
    ends = [process.communicate(timeout=60) for process in nodes]
    assert nodes[1].returncode == 128 + signal.SIGUSR1
    assert nodes[0].returncode in (
        128 + signal.SIGUSR1,
        os.EX_TEMPFAIL,
    )  # the latter, if the first to see the other gone
    (said,) = (line for out, _ in ends for line in out.splitlines() if line.startswith("stopped: vanilla"))
    assert "by SIGUSR1 at step" in said

    assert 0 < steps_in(project) < 40
    nodes = two_nodes(project, "7.3", "vanilla@40")
    ends = [process.communicate(timeout=120) for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], ends
    assert sum("going on from step" in out for out, _ in ends) == 1  # one writes and says so
    assert "another" not in "".join(error for _, error in ends)
    plan = smoke_plan()
    found, _ = load_tensors(project / plan.weights(plan.run("vanilla", 0), 40), "weights")
    whole = tensors(alone_and_together[1], "whole", step=40)
    assert all(torch.equal(found[key], whole[key]) for key in whole)


@pytest.mark.long
def test_two_steps_at_once_with_two_ranks_on_each_node_do_not_meet(project: Path, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other")
    ranks.make_latents(other)
    folders = {"8.0": project, "9.0": other}
    ends = {
        step: [process.communicate(timeout=120) for process in nodes]
        for step, nodes in [(step, two_nodes(folder, step, "vanilla@10", each=2)) for step, folder in folders.items()]
    }
    for step, folder in folders.items():
        assert sum("starting" in out for out, _ in ends[step]) == 1, ends
        assert steps_in(folder) == 1
    plan = smoke_plan()
    first, second = (
        load_tensors(folder / plan.weights(plan.run("vanilla", 0), 10), "weights")[0] for folder in folders.values()
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.long
def test_a_node_that_does_not_come_is_waited_for_and_no_longer(project: Path) -> None:
    command = ranks.verb("vanilla@10", "--ranks", "2", "--nodes", "2", "--rank-timeout", "3")
    for task, step in ((0, "11.0"), (1, "12.0")):
        alone = ranks.start_task(task, 2, step, *command, folder=project)
        _, error = alone.communicate(timeout=60)
        assert alone.returncode == os.EX_TEMPFAIL, error
        assert re.search(r"^stopped: \S+: another of 2 nodes did not come, has ended or does not answer", error, re.M)


def test_ranks_that_are_not_of_one_mind_are_refused(project: Path) -> None:
    port = ranks.free_port()
    started = [
        ranks.start(rank, 2, port, *ranks.verb("vanilla@10", "--seed", str(rank)), folder=project) for rank in range(2)
    ]
    ends = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [2, 2]
    words = r"do not agree: run: rank 0 has vanilla-s0-\w+, rank 1 has vanilla-s1-\w+; start all of them with the same"
    assert re.search(words, ends[0][1])
    assert ends[1] == ("", "")
    assert not list(project.rglob("state.safetensors"))


# ------------------------------------------------------------------------------------ how a batch divides


def test_parts_follow_one_another() -> None:
    assert [Ranks(CPU, rank, 4).part(32) for rank in range(4)] == [slice(r * 8, r * 8 + 8) for r in range(4)]


@pytest.mark.parametrize(
    ("count", "most", "group", "size"),
    [
        (1, None, 1, 24),
        (2, None, 1, 12),
        (2, 5, 1, 4),
        (1, 1, 1, 1),
        (2, 8, 4, 4),
        (3, None, 8, 8),
        (1, None, None, 24),
    ],
)
def test_micro_batches_are_equal_and_of_whole_groups(count: int, most: int | None, group: int, size: int) -> None:
    assert Ranks(CPU, 0, count).micro_batch("run", 24, most, group) == size


@pytest.mark.parametrize(
    ("count", "most", "group", "words"),
    [
        (5, None, 1, "ranks: found 5 for a batch of 24; allowed: 1, 2, 3, 4, 6, 8, 12, 24"),
        (4, None, 8, "ranks: found 4 for a batch of 24 in groups of 8, which its method needs; allowed: 1, 3"),
        (2, None, None, "ranks: found 2 for a batch of 24 in groups of 24, which its method needs; allowed: 1"),
        (1, None, 7, "ranks: found 1 for a batch of 24 in groups of 7, .*allowed: none, since 24 is no multiple of 7"),
        (1, 12, None, "micro_batch: found 12 for examples in groups of 24, which its method needs; allowed: 24 or"),
    ],
)
def test_a_division_that_changes_the_loss_is_refused(count: int, most: int | None, group: int, words: str) -> None:
    with pytest.raises(UserError, match=f"run: {words}"):
        Ranks(CPU, 0, count).micro_batch("run", 24, most, group)


def test_a_method_that_needs_the_whole_batch_says_so(tmp_path: Path) -> None:
    guided = ranks.trainer_of("guided", tmp_path)
    row = guided.run.row
    standardised = row.model_copy(update={"method": row.method | {"normalisation": "standardised"}})
    run = ranks.replace(guided.run, row=standardised)
    context = {"teacher": guided.method.teacher}
    assert type(guided)(run, ranks.toy_dataset(tmp_path / "more"), context, ALONE).micro_batch == 8
    with pytest.raises(UserError, match=r"ranks: found 2 for a batch of 8 in groups of 8, which its method needs"):
        type(guided)(run, ranks.toy_dataset(tmp_path / "more"), context, Ranks(CPU, 0, 2))
