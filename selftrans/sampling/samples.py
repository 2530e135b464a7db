"""Samples on disk: batches in the making, the .npz that the ADM evaluation suite reads too, pictures to look at."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftrans.artifacts import Stream, load_arrays, save_arrays
from selftrans.files import atomic_path


def write_samples(path: Path, batches: Iterable[Tensor], labels: Tensor, header: Mapping[str, Any]) -> None:
    """Write ``arr_0`` (N, H, W, 3) uint8, ``arr_1`` labels and what the ``header`` says of them, uncompressed.

    The ``batches`` (B, 3, H, W) uint8 of the N images arrive in order, one at a time in memory. Image i was drawn
    from the random numbers of (header["seed"], i) alone. Raises ValueError if there are not as many images as
    ``labels`` (N,).
    """
    blocks = (batch.permute(0, 2, 3, 1).numpy() for batch in batches)
    first = next(blocks)
    images = Stream((len(labels), *first.shape[1:]), np.dtype(np.uint8), chain([first], blocks))
    save_arrays(path, "samples", {"arr_0": images, "arr_1": labels.numpy()}, header)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images, the labels that were asked for, and where they come from."""

    images: Tensor  # (N, 3, H, W) uint8
    labels: Tensor  # (N,) int64
    header: dict[str, Any]  # run, step, preset, seed, provenance

    def save(self, path: Path) -> None:
        """Write them as `write_samples` does."""
        write_samples(path, [self.images], self.labels, self.header)

    @classmethod
    def load(cls, path: Path, expected: Mapping[str, Any] | None = None) -> "Samples":
        """Read what `save` wrote.

        Raises UserError if the file is missing, truncated, altered, of another kind, or not as ``expected``.
        """
        arrays, header = load_arrays(path, "samples", expected)
        images = torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2).contiguous()
        return cls(images, torch.from_numpy(arrays["arr_1"]), header)


class BatchFolder:
    """Batches in the making, a file each, whole or not there: who is killed loses one batch at most."""

    def __init__(self, folder: Path, about: Mapping[str, Any], check: Callable[[], None] = lambda: None) -> None:
        """``about`` is what all of them are made of; a batch of anything else is refused.

        ``check`` raises if the folder is another's by now; it is called before a batch is written.
        """
        self.folder = Path(folder)
        self.about = about
        self._check = check

    def _path(self, batch: int) -> Path:
        return self.folder / f"batch-{batch:05d}.npz"

    def __contains__(self, batch: int) -> bool:
        return self._path(batch).exists()

    def save(self, batch: int, images: Tensor) -> None:
        """Write the images (B, 3, H, W) uint8 of a batch."""
        self._check()
        save_arrays(self._path(batch), "batch", {"images": images.numpy()}, {**self.about, "batch": batch})

    def load(self, batch: int) -> Tensor:
        """The images of a batch. Raises UserError if its file is gone, damaged, or another batch."""
        arrays, _ = load_arrays(self._path(batch), "batch", {**self.about, "batch": batch})
        return torch.from_numpy(arrays["images"])


def save_grid(path: Path, images: Tensor) -> None:
    """Write images (rows, columns, 3, H, W) uint8 as one picture (PNG), side by side."""
    from matplotlib.image import imsave

    rows, columns, _, height, width = images.shape
    picture = images.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    with atomic_path(path) as part:
        imsave(part, picture.numpy(), format="png")
