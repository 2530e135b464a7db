"""A resumed run is the same run; after the stop there is no method; a NaN keeps the last good state."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from strangers import CALLED, take_over
from torch.nn.utils import get_total_norm
from toy import random_backbone, smoke_run, toy_dataset

from selftrans.artifacts import load_tensors
from selftrans.data.latents import LatentDataset
from selftrans.errors import Interrupted, UserError
from selftrans.models.checkpoint import load_backbone, load_state, step_to_go_on_from
from selftrans.models.teacher import FrozenTeacher
from selftrans.plan.paths import STATE
from selftrans.training.distributed import Ranks
from selftrans.training.trainer import Trainer, train

ALONE = Ranks(torch.device("cpu"))


@pytest.fixture
def dataset(tmp_path: Path) -> LatentDataset:
    return toy_dataset(tmp_path / "latents")


# Methods with what the others lack: a random draw of their own, and no parameter at all.
OTHER_METHODS = {
    "averaged": {"name": "sra", "layer": 2, "teacher_layer": 4, "time_gap": 0.2, "fade_after": 5, "fade_tenfold": 50},
    "synced": {"name": "layersync", "pairs": ((2, 4),)},
}


def trainer_of(name: str, dataset: LatentDataset, family: dict[str, Any] | None = None, **model: bool) -> Trainer:
    run = smoke_run("aligned" if name in OTHER_METHODS else name)
    run = replace(run, model=run.model.model_copy(update=model))
    run = replace(run, family=run.family.model_copy(update=family))
    if name in OTHER_METHODS:
        run = replace(run, row=run.row.model_copy(update={"method": OTHER_METHODS[name]}))
    context = {}
    if run.teacher is not None:
        sizes = {key: value for key, value in run.backbone.items() if key != "backbone"}
        context["teacher"] = FrozenTeacher(random_backbone(**(sizes | {"blocks": 8})), 8, {"sha256": "0"})
    return Trainer(run, dataset, context, ALONE)


def weights_in(folder: Path):
    return lambda step, kind: folder / f"{step}.{kind}.safetensors"


def same_tensors(one: Path, other: Path) -> bool:
    first, second = load_tensors(one, "weights")[0], load_tensors(other, "weights")[0]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["vanilla", "aligned", "guided", *OTHER_METHODS])
def test_interrupted_at_any_step_ends_in_the_same_weights(name: str, dataset: LatentDataset, tmp_path: Path) -> None:
    train(trainer_of(name, dataset), 20, tmp_path / "whole", weights_in(tmp_path / "whole"))
    for step in (3, 9, 10, 11):  # around the stop of the guided run
        trainer = trainer_of(name, dataset)
        state = load_state(tmp_path / "parts" / STATE, trainer.run, trainer.made_of)
        if state is not None:
            trainer.load(*state)
        original = trainer.train_step

        def stop_after(step: int = step, trainer: Trainer = trainer, original=original) -> None:
            if trainer.step == step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            original()

        trainer.train_step = stop_after
        with pytest.raises(SystemExit) as ended:
            train(trainer, 20, tmp_path / "parts", weights_in(tmp_path / "parts"))
        assert ended.value.code == 128 + signal.SIGTERM
        assert load_state(tmp_path / "parts" / STATE, trainer.run, trainer.made_of).step == step
    train(trainer_of(name, dataset), 20, tmp_path / "parts", weights_in(tmp_path / "parts"))
    for file in ("10.ema.safetensors", "20.ema.safetensors", "20.online.safetensors"):
        assert same_tensors(tmp_path / "whole" / file, tmp_path / "parts" / file)
    assert not (tmp_path / "whole/10.online.safetensors").exists()  # passed


@pytest.mark.parametrize(
    ("family", "model"),
    [({}, {}), ({"precision": "bfloat16", "micro_batch": 2}, {"checkpoint_activations": True})],
    ids=["float32", "bfloat16"],
)
def test_a_longer_run_goes_on_from_a_shorter_one(family, model, dataset: LatentDataset, tmp_path: Path) -> None:
    def trainer() -> Trainer:
        return trainer_of("aligned", dataset, {"milestones": (2, 6), **family}, **model)

    train(trainer(), 6, tmp_path / "whole", weights_in(tmp_path / "whole"))
    for until in (2, 6):
        train(trainer(), until, tmp_path / "parts", weights_in(tmp_path / "parts"))
    assert same_tensors(tmp_path / "whole" / "6.ema.safetensors", tmp_path / "parts" / "6.ema.safetensors")


@pytest.mark.parametrize("most", [1, 3, 8])
def test_micro_batches_add_up_to_the_step(most: int, dataset: LatentDataset) -> None:
    """Three of at most 3 do not fill the batch of 8, so they are of 2."""
    whole, parts = trainer_of("averaged", dataset), trainer_of("averaged", dataset, {"micro_batch": most})
    assert parts.micro_batch == {1: 1, 3: 2, 8: 8}[most]
    for _ in range(5):
        whole.train_step()
        parts.train_step()
    for one, other in zip(whole.drain(), parts.drain(), strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    first, second = whole.backbone.state_dict(), parts.backbone.state_dict()
    torch.testing.assert_close(first, second, rtol=1e-4, atol=2e-6)


def test_numbers_of_a_gpu_cannot_be_drawn_without_one(dataset: LatentDataset) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(
            UserError, match=r"vanilla-s0-\w+: its family's draws: found cuda, but there is no GPU here"
        ):
            trainer_of("vanilla", dataset, {"draws": "cuda"})


def test_lost_weights_are_written_again(dataset: LatentDataset, tmp_path: Path) -> None:
    train(trainer_of("vanilla", dataset), 20, tmp_path, weights_in(tmp_path / "whole"))
    train(trainer_of("vanilla", dataset), 20, tmp_path, weights_in(tmp_path / "again"))  # from the state
    train(trainer_of("vanilla", dataset), 10, tmp_path, weights_in(tmp_path / "again"))  # from the start
    for step in (10, 20):
        file = f"{step}.ema.safetensors"
        assert same_tensors(tmp_path / "whole" / file, tmp_path / "again" / file)


def test_after_the_stop_there_is_no_method(dataset: LatentDataset) -> None:
    trainer = trainer_of("guided", dataset)
    teacher = trainer.method.teacher
    calls = []
    original = teacher.guided_features
    teacher.guided_features = lambda *arguments: (calls.append(trainer.step), original(*arguments))[1]
    for _ in range(12):
        trainer.train_step()
    values = trainer.drain()
    assert calls == list(range(10))
    assert trainer.method is None
    assert [value["method"] > 0 for value in values] == [True] * 10 + [False] * 2
    assert set(trainer.state()) == {"backbone", "ema", "optimiser"}


@pytest.mark.parametrize(
    ("family", "weights"),
    [
        ({}, torch.float32),
        ({"precision": "bfloat16"}, torch.bfloat16),
        ({"teacher_precision": "bfloat16"}, torch.bfloat16),
        ({"precision": "bfloat16", "teacher_precision": "float8"}, torch.float8_e4m3fn),
    ],
)
def test_a_teacher_computes_in_the_students_precision_or_its_own(
    family: dict[str, Any], weights: torch.dtype, dataset: LatentDataset
) -> None:
    trainer = trainer_of("guided", dataset, family)
    assert trainer.method.teacher.backbone.blocks[0].mlp.fc1.weight.dtype == weights
    assert {parameter.dtype for parameter in trainer.backbone.parameters()} == {torch.float32}
    trainer.train_step()
    exact = trainer_of("guided", dataset)
    exact.train_step()
    assert trainer.drain()[0]["method"] == pytest.approx(exact.drain()[0]["method"], rel=0.1)


@pytest.mark.parametrize("clip", [None, 0.01])
def test_the_gradient_is_clipped_unless_the_recipe_says_null(clip: float | None, dataset: LatentDataset) -> None:
    trainer = trainer_of("vanilla", dataset)
    recipe = trainer.family.optimiser.model_copy(update={"clip": clip})
    trainer.family = trainer.family.model_copy(update={"optimiser": recipe})
    parameters = [p for p in trainer.backbone.parameters() if p.requires_grad]
    (optimiser,) = trainer._optimisers()
    norms = []
    optimiser.register_step_pre_hook(lambda *_: norms.append(get_total_norm([p.grad for p in parameters])))
    trainer.train_step()
    (logged,) = (value["gradient_norm"] for value in trainer.drain())
    assert logged > 0.1
    assert norms[0].item() == pytest.approx(clip or logged, rel=1e-4)


@pytest.mark.parametrize("name", ["vanilla", "aligned", "guided", *OTHER_METHODS])
def test_checkpointed_activations_are_recomputed_to_the_same_weights(name: str, dataset: LatentDataset) -> None:
    """Bit for bit: a block run again gives what it gave, and gradients are added up in the same order."""
    kept = trainer_of(name, dataset)
    checkpointed = trainer_of(name, dataset, checkpoint_activations=True)
    assert checkpointed.backbone.checkpointed
    assert checkpointed.run.id == kept.run.id
    for _ in range(11):  # past the stop of the guided run
        kept.train_step()
        checkpointed.train_step()
    assert checkpointed.drain() == kept.drain()
    for one, other in ((kept.backbone, checkpointed.backbone), (kept.ema.model, checkpointed.ema.model)):
        first, second = one.state_dict(), other.state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_rows_of_a_seed_share_all_that_the_method_does_not_touch(dataset: LatentDataset) -> None:
    vanilla, aligned = trainer_of("vanilla", dataset), trainer_of("aligned", dataset)
    first, second = vanilla.backbone.state_dict(), aligned.backbone.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    vanilla.train_step()
    aligned.train_step()
    assert vanilla.drain()[0]["diffusion"] == aligned.drain()[0]["diffusion"]


def test_the_log_has_each_step_once(dataset: LatentDataset, tmp_path: Path) -> None:
    work = tmp_path / "work"
    train(trainer_of("vanilla", dataset), 40, work, weights_in(tmp_path))
    (work / STATE).unlink()
    train(trainer_of("vanilla", dataset), 40, work, weights_in(tmp_path))
    lines = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 40]
    assert {"loss", "diffusion", "method", "gradient_norm", "steps_per_second"} <= lines[0].keys()


def test_the_log_has_the_feature_norm_as_long_as_a_method_looks(dataset: LatentDataset, tmp_path: Path) -> None:
    for name in ("vanilla", "guided"):
        train(trainer_of(name, dataset), 40, tmp_path / name, weights_in(tmp_path / name))
    logs = {name: (tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("vanilla", "guided")}
    vanilla, guided = ([json.loads(line) for line in lines] for lines in logs.values())
    assert [line["step"] for line in guided if "feature_norm" in line] == [10]  # where it stops
    assert not any("feature_norm" in line for line in vanilla)
    again = trainer_of("guided", dataset)
    norms = []
    again.backbone.register_forward_hook(
        lambda _, __, prediction: norms.append(prediction.features[6].norm(dim=-1).mean().item())
    )
    for _ in range(10):
        again.train_step()
    assert guided[0]["feature_norm"] == pytest.approx(sum(norms) / 10)
    assert guided[0]["gradient_norm"] == pytest.approx(sum(value["gradient_norm"] for value in again.drain()) / 10)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_good_state(
    dataset: LatentDataset, tmp_path: Path
) -> None:
    train(trainer_of("vanilla", dataset), 10, tmp_path / "work", weights_in(tmp_path))
    good = (tmp_path / "work" / STATE).read_bytes()
    trainer = trainer_of("vanilla", dataset)
    original = trainer.train_step

    def poison() -> None:
        if trainer.step == 14:
            trainer.backbone.final_layer.linear.bias.data[0] = float("nan")
        original()

    trainer.train_step = poison
    with pytest.raises(UserError, match=r"not finite at step 14: diffusion nan, method 0.*good state is kept"):
        train(trainer, 20, tmp_path / "work", weights_in(tmp_path))
    assert (tmp_path / "work" / STATE).read_bytes() == good
    assert not (tmp_path / "20.ema.safetensors").exists()


def test_weights_that_are_not_finite_are_never_saved(dataset: LatentDataset, tmp_path: Path) -> None:
    """The loss of the first step is fine; after it, everything that could be saved is not."""
    run = smoke_run("aligned")
    optimiser = run.family.optimiser.model_copy(update={"learning_rate": 1e38, "warmup_steps": 0})
    run = replace(run, family=run.family.model_copy(update={"optimiser": optimiser, "milestones": (1,)}))
    trainer = Trainer(run, dataset, {}, ALONE)
    with pytest.raises(UserError, match=r"not finite after step 0; the last good state is kept. Lower the learning"):
        train(trainer, 1, tmp_path / "work", weights_in(tmp_path))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} & {STATE, "1.ema.safetensors"} == set()


def test_a_moment_that_is_not_finite_keeps_the_good_state(dataset: LatentDataset, tmp_path: Path) -> None:
    """Weights are finite still, and would be for ever: a second moment of infinity moves nothing."""
    train(trainer_of("vanilla", dataset), 10, tmp_path / "work", weights_in(tmp_path))
    good = (tmp_path / "work" / STATE).read_bytes()
    trainer = trainer_of("vanilla", dataset)
    original = trainer.train_step

    def poison() -> None:
        original()
        if trainer.step == 15:
            next(iter(trainer.optimiser.state.values()))["exp_avg_sq"].fill_(float("inf"))

    trainer.train_step = poison
    with pytest.raises(UserError, match=r"not finite after step 19; the last good state is kept"):
        train(trainer, 20, tmp_path / "work", weights_in(tmp_path))
    assert (tmp_path / "work" / STATE).read_bytes() == good
    assert not (tmp_path / "20.ema.safetensors").exists()


@pytest.mark.parametrize(("step", "save_every"), [(5, 0.0), (10, 300.0), (19, 300.0)])
def test_a_run_that_another_has_taken_over_is_not_written(
    step: int, save_every: float, dataset: LatentDataset, tmp_path: Path
) -> None:
    """Neither state, nor weights, nor log."""
    trainer = trainer_of("vanilla", dataset)
    original, before = trainer.train_step, {}

    def lose_after() -> None:
        if trainer.step == step - 1:
            take_over(tmp_path / "run")
            before.update({path: path.read_bytes() for path in tmp_path.rglob("*.*")})
        original()

    trainer.train_step = lose_after
    with pytest.raises(Interrupted, match=re.escape(f"{trainer.run.id}: was taken over by {CALLED} while this one")):
        train(trainer, 20, tmp_path / "run", weights_in(tmp_path / "weights"), save_every)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert (tmp_path / "run" / STATE).exists() == (step != 10)


@pytest.mark.parametrize("name", ["lease-1.json", "log.jsonl"])
def test_a_planted_link_is_never_written_through(name: str, dataset: LatentDataset, tmp_path: Path) -> None:
    victim, work = tmp_path / "victim", tmp_path / "work"
    victim.write_text("precious")
    work.mkdir()
    (work / name).symlink_to(victim)
    with pytest.raises((OSError, UserError)) as refused:
        train(trainer_of("vanilla", dataset), 10, work, weights_in(tmp_path))
    assert name in str(refused.value)
    assert victim.read_text() == "precious"


def test_a_pipe_in_the_place_of_the_log_is_not_waited_for(dataset: LatentDataset, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    os.mkfifo(tmp_path / "work" / "log.jsonl")
    with pytest.raises(UserError, match=r"log\.jsonl: a pipe, where a file is wanted"):
        train(trainer_of("vanilla", dataset), 10, tmp_path / "work", weights_in(tmp_path))


def test_weights_say_what_they_are(dataset: LatentDataset, tmp_path: Path) -> None:
    trainer = trainer_of("aligned", dataset)
    train(trainer, 10, tmp_path / "work", weights_in(tmp_path))
    backbone, header = load_backbone(tmp_path / "10.ema.safetensors")
    assert (header["run"], header["step"], header["weights"]) == (trainer.run.id, 10, "ema")
    assert header["row"]["method"]["name"] == "vae_align"
    assert header["provenance"].keys() >= {"commit", "torch", "python", "machine"}
    averaged = trainer.ema.model.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in backbone.state_dict().items())


def test_the_state_of_another_recipe_or_a_damaged_one_is_refused(dataset: LatentDataset, tmp_path: Path) -> None:
    train(trainer_of("vanilla", dataset), 10, tmp_path, weights_in(tmp_path))
    with pytest.raises(UserError, match=r"state\.safetensors: not the state asked for: its run is .* this run anew"):
        train(trainer_of("aligned", dataset), 10, tmp_path, weights_in(tmp_path))
    content = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"state\.safetensors: truncated or damaged"):
        train(trainer_of("vanilla", dataset), 10, tmp_path, weights_in(tmp_path))


def test_a_damaged_line_of_the_log_is_named(dataset: LatentDataset, tmp_path: Path) -> None:
    train(trainer_of("vanilla", dataset), 10, tmp_path, weights_in(tmp_path))
    log = tmp_path / "log.jsonl"
    log.write_text("half a li\n" + log.read_text())
    with pytest.raises(UserError, match=r"log\.jsonl: line 1: found b'half a li', which is no line of a log; delete"):
        train(trainer_of("vanilla", dataset), 20, tmp_path, weights_in(tmp_path))


def test_where_a_run_goes_on_is_known_without_it(dataset: LatentDataset, tmp_path: Path) -> None:
    path, run = tmp_path / STATE, smoke_run("vanilla")
    assert step_to_go_on_from(path, run, until=20) == 0
    train(trainer_of("vanilla", dataset), 10, tmp_path, weights_in(tmp_path))
    assert [step_to_go_on_from(path, run, until) for until in (5, 10, 20)] == [0, 10, 10]
