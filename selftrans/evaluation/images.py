"""Sets of images that somebody made, read batch by batch: the ADM suite's .npz, a folder of PNG or JPEG files.

Nothing is guessed and nothing converted: what is not (N, H, W, 3) uint8, or not opaque RGB of 8 bits and one size, is
refused.
"""

import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from selftrans.errors import UserError
from selftrans.progress import progress_bar

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg"}

# What zipfile, zlib and numpy raise for bytes that are no whole npz.
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, TypeError, ValueError)

# What Pillow raises for bytes that are no whole picture.
DAMAGED_PICTURE = (OSError, SyntaxError, ValueError)

PNG_DEPTH = 24  # the byte of a PNG that says how many bits a channel has


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
    """The images of an npz file or of a folder. Raises UserError for anything else, naming file and reason.

    Warns if the npz has an arr_1 that cannot be labels.
    """
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
            header = json.loads(str(arrays["header"])) if "header" in names else {}
    if len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        raise UserError(f"{path}: arr_0 is {shape} {dtype}; expected (N, H, W, 3) uint8, from 0 to 255")
    if shape[0] == 0:
        raise UserError(f"{path}: arr_0 holds no images")
    labels = _read_labels(path, shape[0]) if "arr_1" in names else None
    read = _read_whole if by_column else _read_rows
    return ImageSet(shape[0], lambda size: read(path, size), labels, header)


def _read_labels(path: Path, count: int) -> Tensor | None:
    """arr_1, or None and a warning if it is not ``count`` integers.

    The ADM suite never reads it, so a file that somebody else made may keep anything there.
    """
    with refuse_damage(path), zipfile.ZipFile(path) as archive:
        member = io.BytesIO(archive.read("arr_1.npy"))  # whole, since only then its checksum is compared
        shape, _, dtype = _read_npy_header(member)
        if shape == (count,) and dtype.kind in "iu":
            member.seek(0)
            return torch.from_numpy(np.lib.format.read_array(member).astype(np.int64))
    warnings.warn(f"{path}: arr_1 is {shape} {dtype}; labels would be {count} integers, so it is ignored", stacklevel=2)
    return None


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
    """Raise UserError unless all can be taken and are as large as the first; only their headers are read."""
    first = None
    with progress_bar(len(files), "looking at files", "file") as bar:
        for file in files:
            size = _size_of(file)
            first = first or size
            if size != first:
                raise UserError(f"{file}: {size[0]}×{size[1]} pixels, but {files[0]} has {first[0]}×{first[1]}")
            bar.update()


def _size_of(file: Path) -> tuple[int, int]:
    """(width, height). Raises UserError unless the picture is RGB, 8 bits, opaque."""
    with _picture(file) as image:
        size, mode, transparent, png = image.size, image.mode, "transparency" in image.info, image.format == "PNG"
    if mode != "RGB":
        raise UserError(f"{file}: its mode is {mode}, expected RGB; convert it, as nothing here does")
    if transparent:  # which Pillow calls RGB too, as the PNG names one transparent colour and has no fourth channel
        raise UserError(f"{file}: it has transparency (tRNS), expected none; convert it, as nothing here does")
    if png and (depth := _png_depth(file)) != 8:  # of 16 bits, Pillow would keep the upper half
        raise UserError(f"{file}: it has {depth} bits per channel, expected 8; convert it, as nothing here does")
    return size


def _png_depth(file: Path) -> int:
    with file.open("rb") as stream:
        return stream.read(PNG_DEPTH + 1)[PNG_DEPTH]


@contextmanager
def _picture(file: Path) -> Iterator["Image.Image"]:
    """The file as Pillow opens it; what that or reading its pixels raises for a damaged one becomes a UserError."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            yield image
    except DAMAGED_PICTURE as error:
        raise UserError(f"{file}: truncated, damaged or no image ({error}); get it or make it again") from error


def _read_files(files: list[Path], batch_size: int) -> Iterator[Tensor]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), batch_size):
            yield torch.stack(list(pool.map(_read_file, files[start : start + batch_size])))


def _read_file(file: Path) -> Tensor:
    with _picture(file) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
