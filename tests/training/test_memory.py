"""What a training needs, against what it really has; what does not fit is refused, with what would."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranks import trainer_of, weights_in
from toy import smoke_run

from selftrans.errors import UserError
from selftrans.plan.memory import Need
from selftrans.plan.runs import Run
from selftrans.training.memory import need_of, require_memory
from selftrans.training.trainer import train


def sized(**model: object) -> Run:
    run = smoke_run("vanilla")
    return replace(run, model=run.model.model_copy(update={"width": 64, "heads": 4, **model}))


def test_weights_are_those_of_a_trainer(tmp_path: Path) -> None:
    """Weights, gradients, moments and average, after a step; buffers and counts of steps are next to nothing."""
    trainer = trainer_of("scaled", tmp_path)
    trainer._optimisers()[0].register_step_pre_hook(lambda *_: gradients.append(sum(map(nbytes, trained))))
    trained = [*trainer.backbone.parameters(), *trainer.method.parameters()]
    gradients: list[int] = []

    def nbytes(parameter: torch.Tensor) -> int:
        return 0 if parameter.grad is None else parameter.grad.nbytes

    trainer.train_step()
    moments = [value for o in trainer._optimisers() for state in o.state.values() for value in state.values()]
    there = sum(tensor.nbytes for tensor in (*trained, *moments, *trainer.ema.model.parameters())) + gradients[0]
    assert need_of(trainer.run, trainer.method, 8).weights == pytest.approx(there, rel=0.02)


def test_too_small_a_gpu_is_refused_with_what_would_fit() -> None:
    need, run = Need(weights=10_000_000_000, example=500_000_000, micro_batch=32), sized()
    require_memory(need, 26_000_000_000, run)
    with pytest.raises(UserError) as refused:
        require_memory(need, 24_000_000_000, run)
    assert str(refused.value).startswith(
        f"{run.id}: needs at least 26.0 GB of GPU memory (weights, gradients and averages 10.0 GB, activations of 32 "
        "examples at once 16.0 GB), and 24.0 GB are free: lower micro_batch"
    )
    assert str(refused.value).endswith("at most 28 would fit, or set checkpoint_activations of the model")
    with pytest.raises(UserError, match=r"8.0 GB are free: take a GPU with more memory$"):
        require_memory(need, 8_000_000_000, sized(checkpoint_activations=True))


def test_a_gpu_that_is_full_is_a_sentence(tmp_path: Path) -> None:
    trainer = trainer_of("scaled", tmp_path)

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer.train_step = full
    with pytest.raises(UserError, match=r"memory is used up; lower micro_batch .* or set checkpoint_activations"):
        train(trainer, 12, tmp_path / "work", weights_in(tmp_path))
