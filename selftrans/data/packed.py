"""Packed rows: one folder with one big array and its labels, written once, read at random.

``<name>.npy``     the rows (N, ...), memory-mapped when read
``labels.npy``     (N,) int64
``crc32.npy``      (N,) uint32, a checksum of each row, compared whenever the row is read
``manifest.json``  shapes, types, sizes, hashes and where the rows come from; written last

A folder with a manifest is whole; one without is what a stopped writer left.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftrans.artifacts import read_record, write_record
from selftrans.errors import UserError
from selftrans.files import atomic_path, file_sha256

Batches = Iterable[tuple[Tensor, Tensor]]  # rows (B, ...) and labels (B,)
REMEDY = "delete the folder and run the same command again"


def write_packed(
    folder: Path, name: str, batches: Batches, *, count: int, source: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write ``count`` rows, whose batches arrive in order; one batch at a time is in memory.

    ``source`` (JSON) says where they come from, with the hashes of what they were made of; ``about``, which rows they
    are. Raises ValueError if the batches do not add up to ``count``.
    """
    folder = Path(folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    with atomic_path(folder / f"{name}.npy") as part:
        labels, crc32 = _stream(part, batches, count)
    for key, array in {"labels": labels, "crc32": crc32}.items():
        with atomic_path(folder / f"{key}.npy") as part, part.open("wb") as file:
            np.save(file, array)
    arrays = {key: _describe(folder / f"{key}.npy") for key in (name, "labels", "crc32")}
    for key in ("labels", "crc32"):
        arrays[key]["sha256"] = file_sha256(folder / f"{key}.npy")
    sha256 = hashlib.sha256(json.dumps(arrays, sort_keys=True).encode()).hexdigest()
    manifest = {**about, "rows": count, "arrays": arrays, "sha256": sha256, "source": dict(source)}
    write_record(folder / "manifest.json", "packed rows", manifest)


def _stream(path: Path, batches: Batches, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the rows as one .npy file; returns labels and checksums."""
    labels, crc32 = [], []
    with path.open("wb") as file:
        for batch, batch_labels in batches:
            rows = batch.contiguous().numpy()
            if not labels:
                header = np.lib.format.header_data_from_array_1_0(rows)
                np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *rows.shape[1:])})
            file.write(rows.data)
            labels += batch_labels.tolist()
            crc32 += _checksums(rows)
    if not len(labels) == len(crc32) == count:
        raise ValueError(f"{count} rows were announced, {len(crc32)} rows and {len(labels)} labels came")
    return np.array(labels, np.int64), np.array(crc32, np.uint32)


def _checksums(rows: np.ndarray) -> list[int]:
    return [zlib.crc32(row) for row in rows]


def _describe(path: Path) -> dict[str, Any]:
    array = np.load(path, mmap_mode="r")
    return {"shape": list(array.shape), "dtype": str(array.dtype), "bytes": path.stat().st_size}


class Packed:
    """A folder of `write_packed`, open for reading.

    Opening compares sizes, and the hashes of the small arrays, with the manifest; reading compares each row
    with its checksum. Raises UserError that names the file, the row and the remedy, also for whole rows that are not
    those that are ``expected``.
    """

    def __init__(self, folder: Path, name: str, expected: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(folder)
        if not (self.folder / "manifest.json").exists():
            raise UserError(f"{self.folder}: no manifest.json, so it was never finished; {REMEDY}")
        manifest = read_record(self.folder / "manifest.json", "packed rows", expected, REMEDY)
        if name not in manifest["arrays"]:
            raise UserError(f"{self.folder}: holds {', '.join(manifest['arrays'])}, but no {name}")
        arrays = {key: self._open(key, expected) for key, expected in manifest["arrays"].items()}
        self.path = self.folder / f"{name}.npy"
        self._rows = arrays[name]
        self.labels = torch.from_numpy(np.array(arrays["labels"]))  # (N,) int64
        self._crc32 = np.array(arrays["crc32"])
        self.sha256: str = manifest["sha256"]  # of the contents, wherever they come from
        self.source: dict[str, Any] = manifest["source"]

    def _open(self, key: str, expected: Mapping[str, Any]) -> np.ndarray:
        path = self.folder / f"{key}.npy"
        if not path.is_file():
            raise UserError(f"{path}: missing, or no file; {REMEDY}")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise UserError(f"{path}: {size} bytes where the manifest says {expected['bytes']}; {REMEDY}")
        if "sha256" in expected and file_sha256(path) != expected["sha256"]:
            raise UserError(f"{path}: altered after it was written (SHA-256 differs); {REMEDY}")
        shape, dtype = tuple(expected["shape"]), np.dtype(expected["dtype"])
        header = size - math.prod(shape) * dtype.itemsize  # for other readers; the manifest says the same
        return np.memmap(path, dtype, "r", offset=header, shape=shape)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Tensor) -> Tensor:
        """The rows at ``indices`` (B,) int64: a tensor (B, ...). Raises UserError for a damaged row."""
        picked = indices.numpy()
        rows = self._rows[picked]
        damaged = picked[self._crc32[picked] != np.array(_checksums(rows), np.uint32)]
        if len(damaged):
            raise UserError(f"{self.path}: row {damaged[0]} is damaged (CRC-32 differs); {REMEDY}")
        return torch.from_numpy(rows)

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in their order, as (rows (B, ...), labels (B,))."""
        for indices in torch.arange(len(self)).split(batch_size):
            yield self.read(indices), self.labels[indices]

    def all(self) -> tuple[Tensor, Tensor]:
        """Everything in memory: (rows (N, ...), labels (N,)). For small sets."""
        return self.read(torch.arange(len(self))), self.labels
