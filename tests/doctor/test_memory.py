"""Trainings against the memory that there is: the numbers are `selftrans.plan.memory`'s."""

from pathlib import Path

import pytest

from selftrans.config.reading.project import load_project
from selftrans.doctor.memory import fits, fitting, free_memory, memory, wanted
from selftrans.plan.memory import Need
from selftrans.plan.plan import Plan

CONFIG = Path(__file__).parents[2] / "config"
NEED = Need(weights=10 * 10**9, example=10**9, micro_batch=256)
GB = 10**9


@pytest.fixture(scope="module")
def imagenet():
    return Plan(load_project(CONFIG, scale="imagenet"))


@pytest.mark.parametrize(("free", "most"), [(9, 0), (10, 0), (11, 1), (26, 16), (41, 16), (42, 32), (300, 256)])
def test_what_fits_divides_the_batch(free, most):
    assert fitting(NEED, free * GB, 256) == most


def test_what_does_not_fit_is_said_with_what_would():
    assert fits("x", NEED, 266 * GB, 256, "GPU memory", False).level == "ok"
    found = fits("x", NEED, 80 * GB, 256, "GPU memory", False)
    assert (found.level, found.advice) == ("wrong", "set micro_batch: 64 in the family, which changes no result")
    nothing = fits("x", NEED, 8 * GB, 256, "GPU memory", False)
    assert (nothing.level, "checkpoint_activations" in nothing.advice) == ("wrong", True)
    assert "checkpoint_activations" not in fits("x", NEED, 8 * GB, 256, "GPU memory", True).advice


def test_where_no_gpu_is_at_hand_it_is_said_which_would_do():
    assert wanted("x", NEED, 256).advice == (
        "by micro_batch, 8 fit into 24 GB, 16 fit into 40 GB, 64 fit into 80 GB, 128 fit into 141 GB"
    )
    huge = Need(weights=200 * GB, example=GB, micro_batch=256)
    assert "checkpoint_activations" in wanted("x", huge, 256).advice


def test_trainings_of_imagenet_on_gpus(imagenet):
    """SiT-B/2 takes some 33 GB for 256 examples at once, on eight ranks an eighth of their activations."""
    runs = [imagenet.run(name, 0) for name in ("sit-b2", "sit-b2-st")]
    training, host = memory(imagenet, runs, [79 * GB] * 8, cores=64)
    assert (training.level, training.what.startswith("training sit-b2 of sit256: ")) == ("ok", True)
    assert "of the machine's memory" in host.what
    training, _ = memory(imagenet, runs, [15 * GB], cores=8)
    assert (training.level, "set micro_batch: 64" in training.advice) == ("wrong", True)
    eight = Plan(load_project(CONFIG, scale="imagenet", ranks=8))
    training, _ = memory(eight, [eight.run("sit-b2", 0)], [15 * GB] * 8, cores=64)
    assert (training.level, "32 examples" in training.what) == ("ok", True)


def test_without_a_gpu_the_demo_is_measured_by_the_machine(imagenet):
    demo = Plan(load_project(CONFIG, scale="demo"))
    (found,) = memory(demo, [demo.run("sit-b2", 0)], [], cores=1)
    assert (found.level, "of memory (1 at a time)" in found.what) == ("ok", True)
    (found,) = memory(demo, [demo.run("sit-b2", 0)], [], cores=100_000)
    assert found.level == "wrong"
    (found,) = memory(imagenet, [imagenet.run("sit-b2", 0)], [], cores=2)
    assert (found.level, "fit into 24 GB" in found.advice) == ("ok", True)
    assert list(memory(demo, [], [], cores=2)) == []


def test_the_limit_of_a_container_counts(tmp_path):
    limit = tmp_path / "memory.max"
    unlimited = free_memory(limit)
    limit.write_text("max\n")
    assert free_memory(limit) == pytest.approx(unlimited, rel=0.2)
    limit.write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert free_memory(limit) == 600_000
