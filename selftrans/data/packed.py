"""Packed rows: a folder of shards, which many jobs may write side by side, read at random.

``shard-00007.npz``  the rows of images 7 S ... 8 S - 1 of a listing, less those that could not be read
``manifest.json``    the shards with their hashes, what all rows are, and which images are missing; written last

A folder with a manifest is whole; one without is what a stopped writer left, and the next one goes on from.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftrans.artifacts import read_record, refuse_damage, write_record
from selftrans.data.shards import Elsewhere, Form, Shard, Unread, write_index, write_shard
from selftrans.errors import UserError

Batches = Iterable[tuple[Tensor, Tensor]]  # rows (B, ...) and labels (B,)
MANIFEST = "manifest.json"
KIND = "packed rows"
SHARD = 2048  # images to a shard, where nothing else is said: what a killed job may lose
WORTH_A_THREAD = 1 << 18  # bytes of rows
NAMED = 5  # unreadable images that a sentence names


def remedy_of(folder: Path) -> str:
    """What to do about a damaged file: where there is a manifest, the workflow takes the folder for whole."""
    return f"delete it and {folder / MANIFEST} and run the same command again, which makes nothing else anew"


@dataclass(frozen=True)
class PackedWriter:
    """What a folder is to hold: rows of the ``listed`` images that can be read, ``size`` images to a shard.

    ``source`` (JSON) says where they come from, with the hashes of what they were made of; ``about``, which rows they
    are. Of each image there are ``views`` rows, one after the other. Whoever makes a shard makes the same one.
    """

    folder: Path
    name: str
    listed: int
    source: Mapping[str, Any]
    about: Mapping[str, Any]
    size: int = SHARD
    views: int = 1
    stored: Form = "raw"

    @property
    def shards(self) -> int:
        """How many there are to be."""
        return -(-self.listed // self.size)

    def images(self, shard: int) -> range:
        """The images of a shard, as numbers in the listing."""
        return range(shard * self.size, min((shard + 1) * self.size, self.listed))

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{shard:05d}.npz"

    def part(self, part: int = 1, parts: int = 1) -> list[int]:
        """The shards that part ``part`` of ``parts``, counted from 1, makes."""
        return list(range(part - 1, self.shards, parts))

    def has(self, shard: int) -> bool:
        """Whether a shard is there, as far as can be told without reading its rows."""
        try:
            self.open(shard)
        except UserError:  # none, damaged or of something else: it is made (again), or what is wrong is said then
            return False
        return True

    def open(self, shard: int) -> Shard:
        """A shard that was made. Raises UserError if it is not there, damaged or of something else."""
        return Shard(self.path(shard), self.name, self._about(shard), remedy_of(self.folder))

    def write(
        self, shard: int, blocks: Sequence[np.ndarray], labels: np.ndarray, unreadable: Sequence[Unread] = ()
    ) -> None:
        """Write the rows of a shard in ``blocks`` (B, ...), their labels (n,), and which images are not among them."""
        (self.folder / MANIFEST).unlink(missing_ok=True)  # from here on, the folder is not what it says
        rows = self.views * (len(self.images(shard)) - len(unreadable))
        if not sum(map(len, blocks)) == len(labels) == rows:
            came = f"{sum(map(len, blocks))} rows and {len(labels)} labels came"
            raise ValueError(f"{rows} rows were announced, {came}")
        write_shard(
            self.path(shard),
            self.name,
            blocks,
            labels,
            about=self._about(shard),
            stored=self.stored,
            unreadable=unreadable,
        )

    def write_index(self, shard: int, rows: Elsewhere, crc32: np.ndarray, labels: np.ndarray) -> None:
        """Write where the rows of a shard are, which stay there, with their checksums and labels."""
        (self.folder / MANIFEST).unlink(missing_ok=True)
        write_index(self.path(shard), self.name, rows, crc32, labels, self._about(shard))

    def _about(self, shard: int) -> dict[str, Any]:
        place = {"shard": shard, "size": self.size, "listed": self.listed, "views": self.views}
        return {**self.about, "source": dict(self.source), **place, "stored": self.stored}

    def gather(self, max_broken: float = 0.0) -> "Packed":
        """Write the manifest of all shards, whoever made them; returns the whole.

        Raises UserError if a shard is missing, or too many images could not be read: then there is no manifest.
        """
        shards = [self.open(shard) for shard in range(self.shards)]
        unreadable = [tuple(image) for shard in shards for image in shard.header["unreadable"]]
        check_unreadable(self.folder, unreadable, self.listed, max_broken)
        filled = [shard for shard in shards if len(shard)]
        if not filled:
            raise UserError(f"{self.folder}: there is nothing to pack: none of {self.listed} images could be read")
        labels, crc32 = (np.concatenate([getattr(shard, key) for shard in shards]) for key in ("labels", "crc32"))
        arrays = {
            self.name: _describe(filled[0].dtype, (len(crc32), *filled[0].shape)),
            **{key: _describe_small(array) for key, array in {"labels": labels, "crc32": crc32}.items()},
        }
        manifest = {
            **self.about,
            "rows": len(crc32),
            "listed": self.listed,
            "views": self.views,
            "arrays": arrays,
            "sha256": hashlib.sha256(json.dumps(arrays, sort_keys=True).encode()).hexdigest(),
            "source": dict(self.source),
            "shards": [_entry(shard) for shard in shards],
            "unreadable": unreadable,
        }
        write_record(self.folder / MANIFEST, KIND, manifest)
        for path in set(self.folder.glob("shard-*.npz")) - {shard.path for shard in shards}:
            path.unlink()  # of a listing that was longer
        return Packed(self.folder, self.name, self.about)


def check_unreadable(where: Path | str, unreadable: Sequence[Unread], listed: int, max_broken: float) -> None:
    """Raise UserError if more than the share ``max_broken`` of the ``listed`` images could not be read.

    The sentence begins with ``where``: what is made of them, or where they lie.
    """
    if len(unreadable) <= max_broken * listed:
        return
    some = "; ".join(f"{name}: {reason}" for _, name, reason in unreadable[:NAMED])
    more = f"; and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    raise UserError(
        f"{where}: {len(unreadable)} of {listed} images could not be read "
        f"({len(unreadable) / listed:.2%}), more than data.max_broken allows ({max_broken:.2%}): {some}{more}"
    )


def with_unreadable(text: str, unreadable: Sequence[Unread]) -> str:
    """``text``, and below it each image that could not be read, with the reason."""
    if not unreadable:
        return text
    lines = [f"\n  {name}: {reason}" for _, name, reason in unreadable]
    return f"{text}; {len(lines)} could not be read:{''.join(lines)}"


def _entry(shard: Shard) -> dict[str, Any]:
    path = shard.path
    return {"file": path.name, "rows": len(shard), "bytes": path.stat().st_size, "sha256": shard.header["sha256"]}


def _describe(dtype: np.dtype, shape: tuple[int, ...]) -> dict[str, Any]:
    """What an .npy file of an array would be: contents are the same however many shards they are in."""
    header = io.BytesIO()
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, layout)
    size = header.tell() + int(np.prod(shape)) * dtype.itemsize
    return {"shape": list(shape), "dtype": str(dtype), "bytes": size}


def _describe_small(array: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    np.save(file, array)
    return _describe(array.dtype, array.shape) | {"sha256": hashlib.sha256(file.getvalue()).hexdigest()}


def write_packed(
    folder: Path,
    name: str,
    batches: Batches,
    *,
    count: int,
    source: Mapping[str, Any],
    about: Mapping[str, Any],
    size: int = SHARD,
) -> None:
    """Write ``count`` rows, whose batches arrive in order; a shard of them at a time is in memory.

    Raises ValueError if the batches do not add up to ``count``.
    """
    writer = PackedWriter(Path(folder), name, count, source, about, size)
    rows = ((row, label) for batch, labels in batches for row, label in zip(batch, labels.tolist(), strict=True))
    for shard in range(writer.shards):
        found = list(islice(rows, len(writer.images(shard))))
        blocks = [torch.stack([row for row, _ in found]).numpy()] if found else []
        writer.write(shard, blocks, np.array([label for _, label in found], np.int64))
    if next(rows, None) is not None:
        raise ValueError(f"{count} rows were announced, but more came")
    writer.gather()


class Packed:
    """A folder of packed rows, open for reading; any number of threads may read, and each has ``threads`` to help it.

    Opening compares sizes, and all but the rows, with hashes; reading compares each row with its checksum. Raises
    UserError that names the file, the row and the remedy, also for whole rows that are not those that are
    ``expected``.
    """

    def __init__(self, folder: Path, name: str, expected: Mapping[str, Any] | None = None, threads: int = 1) -> None:
        self.folder = Path(folder)
        self._threads, self._pool = threads, ThreadPoolExecutor(threads, "rows")  # which starts none before it must
        path, remedy = self.folder / MANIFEST, remedy_of(self.folder)
        if not path.exists():
            raise UserError(f"{self.folder}: no {MANIFEST}, so it was never finished; run the same command again")
        manifest = read_record(path, KIND, expected)
        with refuse_damage(path):
            if name not in manifest["arrays"]:
                raise UserError(f"{self.folder}: holds {', '.join(manifest['arrays'])}, but no {name}")
            shards = [entry for entry in manifest.get("shards", ()) if entry["rows"]]
        if not shards:
            raise UserError(f"{path}: of an earlier version of selftrans; delete the folder and run the command again")
        self._shards = [self._open(entry, name, remedy) for entry in shards]
        self._begins = np.cumsum([0, *map(len, self._shards)])
        self.labels = torch.from_numpy(np.concatenate([shard.labels for shard in self._shards]))  # (N,) int64
        self.shape: tuple[int, ...] = tuple(manifest["arrays"][name]["shape"])  # (N, ...)
        self.dtype = np.dtype(manifest["arrays"][name]["dtype"])
        self.views: int = manifest["views"]  # rows of each image
        self.sha256: str = manifest["sha256"]  # of the contents, wherever they come from
        self.source: dict[str, Any] = manifest["source"]
        self.unreadable: list[Unread] = [tuple(image) for image in manifest["unreadable"]]

    def _open(self, entry: Mapping[str, Any], name: str, remedy: str) -> Shard:
        path = self.folder / entry["file"]
        if not path.is_file():
            raise UserError(f"{path}: missing, or no file; {remedy}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise UserError(f"{path}: {size} bytes where the manifest says {entry['bytes']}; {remedy}")
        return Shard(path, name, {"sha256": entry["sha256"]}, remedy)

    def __len__(self) -> int:
        return self.shape[0]

    def __str__(self) -> str:
        return with_unreadable(f"{self.folder}: {len(self) // self.views} images", self.unreadable)

    def read(self, indices: Tensor) -> Tensor:
        """The rows at ``indices`` (B,) int64: a tensor (B, ...). Raises UserError for a damaged row."""
        picked = indices.numpy()
        rows = np.empty((len(picked), self._shards[0].row_bytes), np.uint8)
        parts = min(self._threads, 1 + rows.nbytes // WORTH_A_THREAD)
        if parts == 1:
            self._fill(rows, picked)
        else:  # several wait for the disk, and neither copies nor checksums hold the interpreter
            pieces = (np.array_split(array, parts) for array in (rows, picked))
            list(self._pool.map(self._fill, *pieces))
        return torch.from_numpy(rows.view(self.dtype).reshape(len(picked), *self.shape[1:]))

    def _fill(self, rows: np.ndarray, picked: np.ndarray) -> None:
        shards = np.searchsorted(self._begins, picked, "right") - 1
        places = picked - self._begins[shards]
        for out, number, place in zip(rows, shards.tolist(), places.tolist(), strict=True):
            shard = self._shards[number]
            shard.copy(place, out)
            if zlib.crc32(out) != shard.crc32[place]:
                raise shard.refusal(place)

    def batches(self, batch_size: int, indices: range | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in their order, or those of a range, as (rows (B, ...), labels (B,))."""
        wanted = torch.arange(len(self)) if indices is None else torch.tensor(indices)
        for batch in wanted.split(batch_size):
            yield self.read(batch), self.labels[batch]

    def all(self) -> tuple[Tensor, Tensor]:
        """Everything in memory: (rows (N, ...), labels (N,)). For small sets."""
        return self.read(torch.arange(len(self))), self.labels
