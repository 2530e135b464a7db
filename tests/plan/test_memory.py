"""Memory by arithmetic, against what real networks keep for their backward pass."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from toy import smoke_run

from selftrans.config.reading.project import load_project
from selftrans.models.backbones import build_backbone
from selftrans.plan.memory import example_bytes, need_of, need_with_teacher
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.plan.size import teacher_bytes

CONFIG = Path(__file__).parents[2] / "config"
TOLERANCE = 0.02  # kernels of another version of torch may keep a little more or less


def sized(row: str = "vanilla", precision: str = "float32", **model: object) -> Run:
    run = smoke_run(row)
    run = replace(run, model=run.model.model_copy(update={"depth": 3, "width": 64, "heads": 4, **model}))
    return replace(run, family=run.family.model_copy(update={"precision": precision}))


def kept(run: Run, count: int, depth: int, checkpointed: bool) -> int:
    """Bytes that a forward pass of so many examples through so many blocks leaves, weights and buffers included."""
    backbone = build_backbone(**run.backbone | {"depth": depth})
    if checkpointed:
        backbone.checkpoint_activations()
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x, t, y = torch.randn(count, 4, 8, 8), torch.rand(count), torch.arange(count) % 10
    halved = torch.autocast("cpu", torch.bfloat16, enabled=run.family.precision == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), halved:
        backbone(x, t, y)
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def measured(run: Run) -> int:
    """Bytes of one example; those of a block that is run again are what it keeps when nothing is checkpointed."""

    def of_example(depth: int, checkpointed: bool) -> int:
        return kept(run, 3, depth, checkpointed) - kept(run, 2, depth, checkpointed)

    checkpointed, depth = run.model.checkpoint_activations, run.model.depth
    again = of_example(depth, False) - of_example(depth - 1, False) if checkpointed else 0
    return of_example(depth, checkpointed) + again


@pytest.mark.parametrize(
    ("row", "precision", "checkpointed", "qk_norm"),
    list(product(["vanilla", "lightning"], ["float32", "bfloat16"], [False, True], [False, True])),
)
@pytest.mark.parametrize("sizes", [{}, {"width": 96, "heads": 2}, {"patch_size": 1, "depth": 2}])
def test_activations_are_what_the_backbone_keeps(row, precision, checkpointed, qk_norm, sizes):
    run = sized(row, precision, checkpoint_activations=checkpointed, qk_norm=qk_norm, **sizes)
    assert example_bytes(run) == pytest.approx(measured(run), rel=TOLERANCE)


def test_half_the_precision_and_checkpoints_take_less():
    deep = {"depth": 12}
    whole, half = example_bytes(sized(**deep)), example_bytes(sized(precision="bfloat16", **deep))
    assert 0.4 < half / whole < 0.9
    assert example_bytes(sized(checkpoint_activations=True, **deep)) < whole / 3


def test_tf32_takes_as_much_as_float32():
    assert example_bytes(sized(precision="tf32")) == example_bytes(sized())


def test_a_student_has_its_teacher_with_it():
    imagenet = Plan(load_project(CONFIG, scale="imagenet"))
    plain, guided = (need_with_teacher(imagenet.run(name, 0), ranks=8) for name in ("sit-b2", "sit-b2-st"))
    teacher = imagenet.run("sit-b2-st", 0).teacher
    assert guided.weights - plain.weights == teacher_bytes(teacher.run.backbone, teacher.layer)
    assert (guided.example, guided.micro_batch) == (plain.example, 256 // 8)
    assert plain == need_of(imagenet.run("sit-b2", 0), 32)


def test_what_a_family_takes_at_once_is_what_is_needed():
    run = sized()
    small = replace(run, family=run.family.model_copy(update={"micro_batch": 2}))
    assert need_with_teacher(small, ranks=1).micro_batch == 2
