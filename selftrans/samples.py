"""Samples on disk: batches in the making, the .npz that the ADM evaluation suite reads too, pictures to look at."""

import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftrans.errors import UserError
from selftrans.files import atomic_path


def write_samples(path: Path, batches: Iterable[Tensor], labels: Tensor, header: dict[str, Any]) -> None:
    """Write ``arr_0`` (N, H, W, 3) uint8, ``arr_1`` labels and ``header`` (JSON), uncompressed.

    The ``batches`` (B, 3, H, W) uint8 of the N images arrive in order, one at a time in memory. Image i was drawn
    from the random numbers of (header["seed"], i) alone. Raises ValueError if there are not as many images as
    ``labels`` (N,).
    """
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            written = 0
            for batch in batches:
                images = np.ascontiguousarray(batch.permute(0, 2, 3, 1).numpy())
                if not written:
                    shape = (len(labels), *images.shape[1:])
                    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, about)
                file.write(images)
                written += len(images)
        if written != len(labels):
            raise ValueError(f"{written} images came for {len(labels)} labels")
        for name, array in {"arr_1": labels.numpy(), "header": np.array(json.dumps(header))}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


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
    def load(cls, path: Path) -> "Samples":
        """Read what `save` wrote, after a pass over all bytes: the zip's own CRC-32 finds altered ones.

        Raises UserError if the file is missing, truncated, altered or of another kind.
        """
        path = Path(path)
        if not path.exists():
            raise UserError(f"{path}: no such file")
        try:
            with zipfile.ZipFile(path) as file:
                if altered := file.testzip():
                    raise zipfile.BadZipFile(f"Bad CRC-32 for file {altered!r}")
            with np.load(path) as file:
                arrays = dict(file)
        except (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, EOFError, OSError) as error:
            raise UserError(f"{path}: truncated or altered ({error}); delete it and sample again") from error
        if missing := {"arr_0", "arr_1", "header"} - arrays.keys():
            raise UserError(f"{path}: not samples that selftrans wrote (no {', '.join(sorted(missing))})")
        images = torch.from_numpy(arrays["arr_0"]).permute(0, 3, 1, 2).contiguous()
        return cls(images, torch.from_numpy(arrays["arr_1"]), json.loads(str(arrays["header"])))


class BatchFolder:
    """Batches in the making, a file each, whole or not there: who is killed loses one batch at most."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def _path(self, batch: int) -> Path:
        return self.folder / f"batch-{batch:05d}.npy"

    def __contains__(self, batch: int) -> bool:
        return self._path(batch).exists()

    def save(self, batch: int, images: Tensor) -> None:
        """Write the images (B, 3, H, W) uint8 of a batch."""
        with atomic_path(self._path(batch)) as part, part.open("wb") as file:
            np.save(file, images.numpy())

    def load(self, batch: int) -> Tensor:
        """The images of a batch. Raises UserError if its file is gone or damaged."""
        path = self._path(batch)
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path}: gone or damaged ({error}); delete it and run the same command again") from error


def save_grid(path: Path, images: Tensor) -> None:
    """Write images (rows, columns, 3, H, W) uint8 as one picture (PNG), side by side."""
    from matplotlib.image import imsave

    rows, columns, _, height, width = images.shape
    picture = images.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
    with atomic_path(path) as part:
        imsave(part, picture.numpy(), format="png")
