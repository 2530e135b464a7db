"""Models without memory: the shapes of their parameters, to compare a file with, or to fill from one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _Undrawn(TorchFunctionMode):
    """In it, `torch.nn.init` leaves its tensor as it is."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextmanager
def laid_out() -> Iterator[None]:
    """Modules made in it have shapes, but no memory and no numbers.

    Nothing is drawn: on the device "meta" that would load PyTorch's compiler, which takes as long as all the rest of
    PyTorch.
    """
    with torch.device("meta"), _Undrawn():
        yield
