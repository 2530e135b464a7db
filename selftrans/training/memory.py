"""What a training takes of a GPU's memory: said before it begins where that is too much, and when there is no more."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from selftrans.errors import UserError
from selftrans.plan import memory
from selftrans.plan.memory import Need
from selftrans.plan.runs import Run

GB = 1e9
ADVICE = "lower micro_batch (a key of the family, or --micro-batch), which changes no result"


def need_of(run: Run, method: nn.Module | None, micro_batch: int) -> Need:
    """Of training a run with its method. Teacher and encoder are not in it: they are on the GPU already."""
    parameters = () if method is None else method.parameters()
    return memory.need_of(run, micro_batch, sum(parameter.numel() for parameter in parameters))


def require_memory(need: Need, free: int, run: Run) -> None:
    """Raise UserError if a training needs more bytes than are ``free``."""
    if need.total <= free:
        return
    fitting = (free - need.weights) // need.example
    smaller = f"{ADVICE}; at most {fitting} would fit" if fitting > 0 else "take a GPU with more memory"
    checkpoint = "" if run.model.checkpoint_activations else ", or set checkpoint_activations of the model"
    raise UserError(
        f"{run.id}: needs at least {need.total / GB:.1f} GB of GPU memory (weights, gradients and averages "
        f"{need.weights / GB:.1f} GB, activations of {need.micro_batch} examples at once "
        f"{need.micro_batch * need.example / GB:.1f} GB), and {free / GB:.1f} GB are free: {smaller}{checkpoint}"
    )


@contextmanager
def out_of_memory_explained(run: Run) -> Iterator[None]:
    """A GPU that has no more memory becomes a sentence."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{run.id}: the GPU's memory is used up; {ADVICE}, or set checkpoint_activations of the model"
        ) from error
