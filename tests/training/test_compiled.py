"""Compiled steps: the same up to rounding, without a break in a graph, compiled once, and going on bit for bit."""

import copy
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import weights_in
from test_methods import SETTINGS, make
from torch._dynamo.utils import counters
from torch.nn.parallel import DistributedDataParallel
from toy import random_backbone, random_batch, smoke_run, toy_dataset

from selftrans.artifacts import load_tensors
from selftrans.errors import UserError
from selftrans.models import compiling
from selftrans.models.compiling import compile_in_place
from selftrans.models.teacher import FrozenTeacher
from selftrans.training.distributed import Ranks
from selftrans.training.objective import Losses, Objective
from selftrans.training.trainer import Trainer, train

ALONE = Ranks(torch.device("cpu"))
STOP = 10  # of the guided run


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing is compiled, as in a new process."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the generated code: graphs are traced, forward and backward, and run operation by operation."""
    monkeypatch.setattr(compiling, "HOW", {"fullgraph": True, "dynamic": False, "backend": "aot_eager"})


def graphs() -> int:
    """How many have been compiled, forward and backward together counted once."""
    return counters["stats"]["unique_graphs"]


def trainer_of(name: str, folder: Path, ranks: Ranks = ALONE, **model: bool) -> Trainer:
    """A compiled run of the smoke configuration, with a random teacher."""
    run = smoke_run(name)
    family = run.family.model_copy(update={"compile": True, "milestones": (6, 12)})
    run = replace(run, family=family, model=run.model.model_copy(update={"depth": 8, **model}))
    context = {}
    if run.teacher is not None:
        sizes = {key: value for key, value in run.backbone.items() if key != "backbone"}
        context["teacher"] = FrozenTeacher(random_backbone(**(sizes | {"blocks": 8})), 8, {"sha256": "0"})
    return Trainer(run, toy_dataset(folder / "latents"), context, ranks)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_method_breaks_a_graph(name: str, traced: None) -> None:
    """A break would raise; losses and gradients are those of the plain step."""
    found: list[tuple[Losses, list[torch.Tensor]]] = []
    for compiled in (False, True):
        backbone, average = random_backbone(), random_backbone(seed=7)
        method = make(name, backbone)
        if compiled:
            compile_in_place(*backbone.parts, *average.parts, *method.children())
            for frozen in filter(None, (getattr(method, "teacher", None), getattr(method, "encoder", None))):
                frozen.compute_in("bfloat16")
                frozen.compile()
        losses = Objective(backbone, method, 0.5, 0.0, "bfloat16")(*random_batch(), average, 0)
        losses.total.backward()
        found.append((losses, [part.grad for part in backbone.parameters() if part.grad is not None]))
    (plain, gradients), (losses, compiled_gradients) = found
    assert graphs() > 0
    torch.testing.assert_close(losses, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-4, atol=1e-4)


def test_a_float8_teacher_is_one_graph_too(traced: None) -> None:
    teacher = FrozenTeacher(random_backbone(), 3, {})
    teacher.compute_in("float8")
    noised, batch = random_batch()
    exact = teacher.features(noised.x_t, noised.t, batch.labels)
    teacher.compile()
    torch.testing.assert_close(teacher.features(noised.x_t, noised.t, batch.labels), exact, rtol=1e-5, atol=1e-5)
    assert graphs() == 1


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_stop_leaves_the_plain_compiled_step(checkpointed: bool, traced: None, tmp_path: Path) -> None:
    """Teacher and projector are gone, nothing is compiled for it, and it is bit for bit that of a plain run."""
    guided = trainer_of("guided", tmp_path / "guided", checkpoint_activations=checkpointed)
    method = [weakref.ref(part) for part in (guided.method.projector, guided.method.teacher.backbone.blocks[0])]
    guided.train_step()
    compiled = graphs()
    while guided.step < STOP:
        guided.train_step()
    assert graphs() == compiled > 0
    gc.collect()
    assert [part() for part in method] == [None, None]
    plain = trainer_of("vanilla", tmp_path / "plain", checkpoint_activations=checkpointed)
    plain.load(STOP, copy.deepcopy(guided.state()), {})
    for trainer in (guided, plain):
        trainer.drain()
        trainer.train_step()
        trainer.train_step()
    assert graphs() == compiled  # blocks are what they were, with a method and without
    assert guided.drain() == plain.drain()
    first, second = guided.backbone.state_dict(), plain.backbone.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ranks_exchange_the_gradients_of_compiled_blocks(traced: None, tmp_path: Path) -> None:
    """A process that is the only one of a group takes the steps of a process alone, bit for bit."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        one = Ranks(ALONE.device, control=dist.new_group(backend="gloo"))
        alone = trainer_of("aligned", tmp_path / "alone", checkpoint_activations=True)
        grouped = trainer_of("aligned", tmp_path / "grouped", one, checkpoint_activations=True)
        for trainer in (alone, grouped):
            for _ in range(3):
                trainer.train_step()
        assert isinstance(grouped._objective, DistributedDataParallel)
        assert grouped.drain() == alone.drain()
    finally:
        dist.destroy_process_group()


def test_a_machine_without_a_compiler_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(UserError, match="compile: found true, but there is no C compiler here: install gcc or clang"):
        compile_in_place(random_backbone())


def test_parameters_keep_their_names(traced: None, tmp_path: Path) -> None:
    trainer = trainer_of("aligned", tmp_path)
    trainer.train_step()
    assert graphs() > 0
    assert trainer.backbone.state_dict().keys() == trainer.ema.model.state_dict().keys()
    assert not any("_orig_mod" in name for part in trainer.state().values() for name in part)


@pytest.mark.long  # a C++ compiler is asked for each kind of block
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_run_goes_on_bit_for_bit(checkpointed: bool, fresh: None, tmp_path: Path) -> None:
    """With the generated code, which a new process makes anew; each step is near the plain one."""

    def trained(until: int, folder: Path) -> Trainer:
        torch.compiler.reset()
        trainer = trainer_of("guided", folder, checkpoint_activations=checkpointed)
        train(trainer, until, folder, weights_in(folder))
        return trainer

    with torch._inductor.utils.fresh_cache():
        trained(12, tmp_path / "whole")
    for until in (6, 12):
        with torch._inductor.utils.fresh_cache():
            trained(until, tmp_path / "parts")
    whole, parts = (load_tensors(tmp_path / name / "12.ema.safetensors", "weights")[0] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    plain = trainer_of("guided", tmp_path / "plain", checkpoint_activations=checkpointed)
    with torch.compiler.set_stance("force_eager"):
        while plain.step < 12:
            plain.train_step()
    torch.testing.assert_close(whole, dict(plain.ema.model.state_dict()), rtol=1e-3, atol=1e-4)
