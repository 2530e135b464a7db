"""Sets of images that somebody made, read batch by batch: the ADM suite's .npz, a folder of PNG or JPEG files.

Nothing is guessed and nothing converted: what is not (N, H, W, 3) uint8, or not RGB of one size, is refused.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from selftrans.errors import UserError
from selftrans.progress import progress_bar

SUFFIXES = {".png", ".jpg", ".jpeg"}

# What zipfile, zlib and numpy raise for bytes that are no whole npz.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images on disk, all of one size; ``split`` reads them, one batch at a time in memory."""

    count: int
    split: Callable[[int], Iterator[Tensor]]  # batch size -> tensors (n, 3, H, W) uint8, in order
    labels: Tensor | None = None  # (N,) int64, the classes that were asked for
    header: dict[str, Any] = field(default_factory=dict)  # what selftrans' own samples say about themselves

    def __len__(self) -> int:
        return self.count


def open_images(path: Path) -> ImageSet:
    """The images of an npz file or of a folder. Raises UserError for anything else, naming file and reason."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    return _open_folder(path) if path.is_dir() else _open_npz(path)


def arrays_in(path: Path) -> set[str]:
    """Names of the arrays in an npz file; none for a folder. Raises UserError if the file is no npz."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir():
        return set()
    with refuse_damage(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


@contextmanager
def refuse_damage(path: Path) -> Iterator[None]:
    """Turn what reading a damaged npz raises into a UserError."""
    try:
        yield
    except DAMAGED as error:
        raise UserError(f"{path}: truncated, damaged or no npz ({error}); get it or make it again") from error


# ------------------------------------------------------------------------------------------------------- npz


def _open_npz(path: Path) -> ImageSet:
    names = arrays_in(path)
    if "arr_0" not in names:
        found = ", ".join(sorted(names)) or "nothing"
        raise UserError(f"{path}: no images in it: found {found}; expected arr_0 (N, H, W, 3) uint8")
    with refuse_damage(path):
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as member:
            shape, by_column, dtype = _read_npy_header(member)
        with np.load(path) as arrays:
            labels = torch.from_numpy(arrays["arr_1"]) if "arr_1" in names else None
            header = json.loads(str(arrays["header"])) if "header" in names else {}
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise UserError(f"{path}: arr_0 is {shape} {dtype}; expected (N, H, W, 3) uint8, from 0 to 255")
    if shape[0] == 0:
        raise UserError(f"{path}: arr_0 holds no images")
    if labels is not None and (labels.shape != shape[:1] or labels.is_floating_point()):
        raise UserError(
            f"{path}: arr_1 is {tuple(labels.shape)} {labels.dtype}; expected {shape[0]} integers, the labels"
        )
    read = _read_whole if by_column else _read_rows
    return ImageSet(shape[0], lambda size: read(path, size), None if labels is None else labels.long(), header)


def _read_npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether it lies in Fortran order, type) of an .npy file that is open at its beginning."""
    version = np.lib.format.read_magic(member)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version}, expected 1.0 or 2.0")
    return readers[version](member)


def _read_rows(path: Path, batch_size: int) -> Iterator[Tensor]:
    """Stream arr_0 out of the zip, whose checksum is compared at its end; one batch is in memory."""
    with refuse_damage(path), zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as member:
        (count, *size), _, _ = _read_npy_header(member)
        for start in range(0, count, batch_size):
            rows = min(batch_size, count - start)
            data = bytearray(member.read(rows * int(np.prod(size))))
            yield torch.frombuffer(data, dtype=torch.uint8).view(rows, *size).permute(0, 3, 1, 2)
        if member.read(1):
            raise ValueError("arr_0 is longer than its header says")


def _read_whole(path: Path, batch_size: int) -> Iterator[Tensor]:
    """The way for arrays in Fortran order, which no part of the file holds an image of: all in memory."""
    with refuse_damage(path), np.load(path) as arrays:
        images = torch.from_numpy(np.ascontiguousarray(arrays["arr_0"]))
    yield from images.permute(0, 3, 1, 2).split(batch_size)


# ---------------------------------------------------------------------------------------------------- folder


def _open_folder(path: Path) -> ImageSet:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{path}: no images in it; expected {', '.join(sorted(SUFFIXES))}")
    _check_sizes(files)
    return ImageSet(len(files), lambda size: _read_files(files, size))


def _check_sizes(files: list[Path]) -> None:
    """Raise UserError unless all are RGB and as large as the first; only their headers are read."""
    from PIL import Image, UnidentifiedImageError

    first = None
    with progress_bar(len(files), "looking at files", "file") as bar:
        for file in files:
            try:
                with Image.open(file) as image:
                    size, mode = image.size, image.mode
            except (UnidentifiedImageError, OSError) as error:
                raise UserError(f"{file}: not an image that can be read ({error})") from error
            first = first or size
            if mode != "RGB":
                raise UserError(f"{file}: its mode is {mode}, expected RGB; convert it, as nothing here does")
            if size != first:
                raise UserError(f"{file}: {size[0]}×{size[1]} pixels, but {files[0]} has {first[0]}×{first[1]}")
            bar.update()


def _read_files(files: list[Path], batch_size: int) -> Iterator[Tensor]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), batch_size):
            yield torch.stack(list(pool.map(_read_file, files[start : start + batch_size])))


def _read_file(file: Path) -> Tensor:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
    except OSError as error:
        raise UserError(f"{file}: truncated or damaged ({error})") from error
