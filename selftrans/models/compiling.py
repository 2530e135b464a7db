"""Compiled forward passes: block by block, in place.

A block is compiled once for all blocks of its kind, so it takes seconds where a whole backbone takes minutes, and what
is captured between blocks changes no number: a row that captures features, and one that does not, run the same code.
"""

import os
import shutil
from typing import Any

import torch
from torch import nn

from selftrans.errors import UserError

# One graph or an error, never a part of it; new sizes are compiled anew, so that none has another's rounding; kernels
# are not chosen by timing them, so that every process chooses the same.
HOW: dict[str, Any] = {"fullgraph": True, "dynamic": False, "options": {"deterministic": True}}


def compile_in_place(*parts: nn.Module) -> None:
    """From now on ``parts`` run code that is compiled at their first call; parameters keep their names.

    Raises UserError if this machine has no C compiler, which Inductor needs, for a GPU too.
    """
    if not any(map(shutil.which, (os.environ.get("CC", "gcc"), "gcc", "clang"))):
        raise UserError(
            "compile: found true, but there is no C compiler here: install gcc or clang, name one in CC, or set "
            "compile: false in the family, which is another run"
        )
    torch._dynamo.config.optimize_ddp = False  # it would cut blocks up, for an exchange of gradients block by block
    for part in parts:
        part.compile(**HOW)
