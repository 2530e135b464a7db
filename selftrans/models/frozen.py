"""Networks that others learn from and that do not learn: a teacher, an encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from selftrans.errors import UserError
from selftrans.models.compiling import compile_in_place
from selftrans.models.float8 import CAPABILITY, to_float8

Precision = Literal["float32", "tf32", "bfloat16", "float8"]


class Frozen:
    """A network in eval mode and without gradients. No module, so that no optimiser, state or average can see it."""

    def __init__(self, network: nn.Module) -> None:
        """``network`` has ``blocks``, where nearly all of its work is."""
        self._network = network.eval().requires_grad_(False)
        self._rounded = False

    def compile(self) -> None:
        """Run compiled blocks from now on."""
        compile_in_place(*self._network.blocks)

    def compute_in(self, precision: Precision) -> None:
        """Make products in ``precision`` from now on, with weights that are rounded once.

        With "bfloat16" that is, bit for bit, what autocast does, which rounds frozen weights at each pass. "float8" is
        of the blocks' attention and MLP; what is around them is in bfloat16. Raises UserError if the GPU cannot.
        """
        if precision in ("float32", "tf32"):
            return
        if precision == "float8":
            device = next(self._network.parameters()).device
            if device.type == "cuda":
                require_float8(torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device))
            for block in self._network.blocks:
                to_float8(block)
        for part in self._network.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.to(torch.bfloat16)
        self._rounded = True

    @contextmanager
    def forward_pass(self, device: torch.device) -> Iterator[None]:
        """No gradients, and the network's own precision, or whoever asks' as long as none was said."""
        rounded = self._rounded or torch.is_autocast_enabled(device.type)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=rounded):
            yield


def require_float8(name: str, capability: tuple[int, int]) -> None:
    """Raise UserError unless a GPU of this name and compute capability has products of float8."""
    if capability < CAPABILITY:
        raise UserError(
            f"teacher_precision: found float8, of which {name} has no products (they began with Hopper); allowed: "
            "null, bfloat16"
        )
