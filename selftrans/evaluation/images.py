"""Sets of images that somebody made, read batch by batch: the ADM suite's .npz, a folder or zip of PNG or JPEG files.

Nothing is guessed and nothing converted: what is not (N, H, W, 3) uint8, or not opaque RGB of 8 bits and one size, is
refused.
"""

import hashlib
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from selftrans.artifacts import arrays_sha256, begin_array, check_header
from selftrans.errors import UserError
from selftrans.evaluation.npz import NPY_HEADER, REMEDY, WANTED, arrays_in, layout_of, open_zip, own_header, read_array
from selftrans.evaluation.pictures import (
    SUFFIXES,
    folders_of,
    pictures_below,
    pictures_inside,
    read_pictures,
    require_pixels,
    size_of_all,
)
from selftrans.formats import few

BATCH_BYTES = 1 << 26  # of a batch's pixels, unless one image has more
WHOLE_BYTES = 1 << 31  # of an array in Fortran order, no part of which is an image


@dataclass(eq=False)
class ImageSet:
    """Images on disk, all of one size, read one batch at a time."""

    shape: tuple[int, int, int, int]  # (N, H, W, 3)
    read: Callable[[int], Iterator[Tensor]]  # batch size -> tensors (n, 3, H, W) uint8, in order
    labels: Tensor | None = None  # (N,) int64, the classes that were asked for
    header: dict[str, Any] = field(default_factory=dict)  # what selftrans' own samples say about themselves
    folders: dict[str, int] = field(default_factory=dict)  # of pictures: how many lie in which folder
    sha256: str | None = field(default=None, init=False)  # of all pixels, once they have been read to the end
    unreadable: tuple[()] = field(default=(), init=False)  # one that cannot be read ends it

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.shape[1:3]

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, as tensors (n, 3, H, W) uint8 of ``batch_size`` images, or fewer if they are large.

        Raises UserError for one that is damaged, ValueError at the end if they are not those that selftrans wrote.
        """
        digest = hashlib.sha256()
        begin_array(digest, "arr_0", np.dtype(np.uint8), self.shape)
        for batch in self.read(max(1, min(batch_size, BATCH_BYTES // math.prod(self.shape[1:])))):
            digest.update(batch.permute(0, 2, 3, 1).contiguous().numpy().data)
            yield batch
        self.sha256 = digest.hexdigest()
        if self.labels is not None:
            labels = self.labels.numpy()
            begin_array(digest, "arr_1", labels.dtype, labels.shape)
            digest.update(labels.data)
        if self.header.get("sha256", digest.hexdigest()) != digest.hexdigest():
            raise ValueError("altered after it was written (its SHA-256 is another)")

    @property
    def made_of(self) -> dict[str, Any]:
        """What decides whether other images are these, after all have been read."""
        labels = {} if self.labels is None else {"labels": arrays_sha256({"labels": self.labels.numpy()})}
        return {"images": self.sha256, "size": list(self.size), **labels}

    def __str__(self) -> str:
        height, width = self.size
        text = f"{len(self):,} images of {width}×{height} pixels"
        of = few((f"{name} ({count:,})" for name, count in self.folders.items()), len(self.folders))
        return f"{text}, of {of}" if self.folders.keys() - {"."} else text


class Rows(Protocol):
    """Images in memory-mapped rows (`selftrans.data.packed`)."""

    labels: Tensor

    def __len__(self) -> int:
        """N."""

    def batches(self, batch_size: int, indices: range | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (n, 3, H, W) uint8 and their labels; all of them, or those of a range."""


def packed_images(packed: Rows, indices: range | None = None) -> ImageSet:
    """Images that are packed; all of them, or those of a range."""
    indices = range(len(packed)) if indices is None else indices
    first, _ = next(packed.batches(1))
    shape = (len(indices), *first.shape[2:], 3)
    labels = packed.labels[indices.start : indices.stop]
    return ImageSet(shape, lambda size: (rows for rows, _ in packed.batches(size, indices)), labels)


def open_images(path: Path) -> ImageSet:
    """The images of an npz file, of a folder or of a zip. Raises UserError for anything else, naming file and reason.

    Warns if the npz has an arr_1 that cannot be labels.
    """
    path = Path(path)
    if path.is_dir():
        pictures = pictures_below(path)
        if not pictures:
            raise UserError(f"{path}: no images in it; expected {', '.join(sorted(SUFFIXES))}")
        size = size_of_all(pictures)
        shape = (len(pictures), *size, 3)
        return ImageSet(shape, lambda rows: read_pictures(pictures, size, rows), folders=folders_of(pictures))
    with open_zip(path) as archive:
        return _open_npz(path, archive) if arrays_in(archive) else _open_pictures(path, archive)


def _open_pictures(path: Path, archive: zipfile.ZipFile) -> ImageSet:
    pictures = pictures_inside(path, archive)
    if not pictures:
        names = archive.namelist()
        found = few(names, len(names)) or "nothing"
        raise UserError(
            f"{path}: a zip archive with neither arrays nor pictures in it (it holds {found}), where {WANTED}"
        )
    size = size_of_all(pictures)

    def read(batch_size: int) -> Iterator[Tensor]:
        with open_zip(path) as again:
            yield from read_pictures(pictures_inside(path, again), size, batch_size)

    return ImageSet((len(pictures), *size, 3), read, folders=folders_of(pictures))


# ------------------------------------------------------------------------------------------------------- npz


def _open_npz(path: Path, archive: zipfile.ZipFile) -> ImageSet:
    names = arrays_in(archive)
    header = own_header(archive)
    header = {} if header is None else check_header(path, header, "samples", remedy=REMEDY)
    if "arr_0" not in names:
        found = few(sorted(names), len(names))
        raise UserError(f"{path}: no images in it: found {found}; expected arr_0 (N, H, W, 3) uint8")
    layout = layout_of(archive, "arr_0")
    shape = layout.shape
    if len(shape) != 4 or shape[3] != 3 or layout.dtype != np.uint8:
        raise UserError(f"{path}: arr_0 is {shape} {layout.dtype}; expected (N, H, W, 3) uint8, from 0 to 255")
    if 0 in shape:
        raise UserError(f"{path}: arr_0 holds no images")
    require_pixels(f"{path}: arr_0", *shape[1:3])
    labels = _read_labels(path, archive, shape[0]) if "arr_1" in names else None
    if layout.by_column and math.prod(shape) > WHOLE_BYTES:
        raise UserError(f"{path}: arr_0 lies in Fortran order and is too large for that; save it in C order")
    read = _read_whole if layout.by_column else _read_rows
    return ImageSet(shape, lambda size: read(path, size), labels, header)


def _read_labels(path: Path, archive: zipfile.ZipFile, count: int) -> Tensor | None:
    """arr_1, or None and a warning if it is not ``count`` integers.

    The ADM suite never reads it, so a file that somebody else made may keep anything there. It is read whole, since
    only then its checksum is compared, unless it is larger than labels are.
    """
    layout, size = layout_of(archive, "arr_1"), archive.getinfo("arr_1.npy").file_size
    if size <= NPY_HEADER + 8 * count:
        archive.read("arr_1.npy")
    if layout.shape == (count,) and layout.dtype.kind in "iu":
        return torch.from_numpy(read_array(archive, "arr_1", layout.offset + 8 * count).astype(np.int64))
    found = f"arr_1 is {layout.shape} {layout.dtype}"
    warnings.warn(f"{path}: {found}; labels would be {count} integers, so it is ignored", stacklevel=2)
    return None


def _read_rows(path: Path, batch_size: int) -> Iterator[Tensor]:
    """Stream arr_0 out of the zip, whose checksum is compared at its end; one batch is in memory."""
    with open_zip(path) as archive:
        layout = layout_of(archive, "arr_0")
        count, *size = layout.shape
        with archive.open("arr_0.npy") as member:
            member.read(layout.offset)
            for start in range(0, count, batch_size):
                rows = min(batch_size, count - start)
                data = bytearray(member.read(rows * math.prod(size)))
                yield torch.frombuffer(data, dtype=torch.uint8).view(rows, *size).permute(0, 3, 1, 2)
            if member.read(1):
                raise ValueError("arr_0 is longer than its header says")


def _read_whole(path: Path, batch_size: int) -> Iterator[Tensor]:
    """The way for arrays in Fortran order: all in memory."""
    with open_zip(path) as archive:
        array = read_array(archive, "arr_0", WHOLE_BYTES + 4096)
    yield from torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2).split(batch_size)
