"""References of any number of images, made in blocks of them, by one job or by many.

A block is a file in the making, whole or not there: who is killed loses one at most. Features are added up within a
block, and blocks in their order, so that the reference is the same to the last bit whoever made which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from selftrans.artifacts import arrays_header, load_arrays, refuse_damage, save_arrays
from selftrans.errors import UserError
from selftrans.evaluation.checks import require_rows
from selftrans.evaluation.extractors import Extractor, Images
from selftrans.evaluation.images import ImageSet, Rows, packed_images
from selftrans.evaluation.moments import MomentAccumulator
from selftrans.evaluation.statistics import Statistics

KIND = "block of a reference"
ROWS = 10_000  # of features that a reference keeps, as many as ADM's has images
BLOCK = 1 << 15  # images to a block; sums of other blocks have other last bits

Unread = tuple[int, str, str]  # an image's number in the listing, its name, and why it cannot be read


class Part(Images, Protocol):
    """A range of listed images, and which of them could not be read, once all have been asked for."""

    unreadable: Sequence[Unread]


class Listing(Protocol):
    """Images in an order, any range of which may be read alone."""

    @property
    def sha256(self) -> str:
        """Of what decides which images they are."""

    def __len__(self) -> int:
        """As many as are listed."""

    def part(self, indices: range) -> Part:
        """Those of a range."""

    def check(self, unreadable: Sequence[Unread]) -> None:
        """Raise UserError if so many must not be missing."""

    def made_of(self, unreadable: Sequence[Unread]) -> dict[str, Any]:
        """What decides whether other images are these, but for the ``unreadable``."""


@dataclass(frozen=True)
class PackedListing:
    """Packed images, all of which can be read: ``sha256`` is that of their rows."""

    packed: Rows
    sha256: str

    def __len__(self) -> int:
        return len(self.packed)

    def part(self, indices: range) -> ImageSet:
        """Those of a range."""
        return packed_images(self.packed, indices)

    def check(self, unreadable: Sequence[Unread]) -> None:
        """Nothing is missing."""

    def made_of(self, unreadable: Sequence[Unread]) -> dict[str, Any]:
        """SHA-256 of all pixels, for which they are read, of their labels, and their size."""
        images = packed_images(self.packed)
        for _ in images.split(BLOCK):
            pass
        return images.made_of


@dataclass(frozen=True, eq=False)
class Block:
    """What a reference needs of a block of images: sums of their features, and some features (n, D) themselves."""

    pool: MomentAccumulator
    spatial: MomentAccumulator  # of nothing, where an extractor gives none
    features: Tensor
    unreadable: Sequence[Unread] = field(default_factory=list)

    @classmethod
    def of(cls, images: Part, indices: range, extractor: Extractor, kept: Tensor, of: str = "") -> Self:
        """Of the images of a range, whose rows are kept if they are among ``kept``; ``of`` as `Extractor.extract` has.

        Raises ValueError at the first row that is not finite.
        """
        pool: list[Tensor] = []
        spatial, row = MomentAccumulator(), indices.start
        for batch in extractor.extract(images, of=of):
            require_rows(batch.pool, "pool features", first_row=row)
            pool.append(batch.pool)
            if batch.spatial is not None:
                spatial.update(batch.spatial)
            row += len(batch.pool)
        features = torch.cat(pool) if pool else torch.empty(0, 0)
        missing = {index for index, *_ in images.unreadable}
        readable = torch.tensor([index for index in indices if index not in missing], dtype=torch.long)
        sums = MomentAccumulator.of(features) if pool else MomentAccumulator()
        return cls(sums, spatial, features[torch.isin(readable, kept)], list(images.unreadable))

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write it, and what it is ``about``."""
        arrays = {"features": self.features.numpy()}
        for name, accumulator in {"pool": self.pool, "spatial": self.spatial}.items():
            arrays |= {f"{name}_{key}": value.numpy() for key, value in accumulator.sums().items()}
        save_arrays(path, KIND, arrays, {**about, "unreadable": self.unreadable})

    @classmethod
    def load(cls, path: Path, about: Mapping[str, Any]) -> Self:
        """Read what `save` wrote. Raises UserError if it is missing, damaged, or about something else."""
        arrays, header = load_arrays(path, KIND, about)
        with refuse_damage(path):
            pool, spatial = (MomentAccumulator.of_sums(_sums_of(arrays, name)) for name in ("pool_", "spatial_"))
            unreadable = [tuple(image) for image in header["unreadable"]]
            return cls(pool, spatial, torch.from_numpy(arrays["features"]), unreadable)


def _sums_of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    found = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): torch.from_numpy(array) for name, array in found.items()}


class ReferenceWriter:
    """A reference in the making: blocks of ``images`` as ``extractor`` sees them, in a ``folder`` of their own.

    ``key`` is that of the extractor in the workflow. Whoever makes a block makes the same one.
    """

    def __init__(self, folder: Path, images: Listing, extractor: Extractor, key: str) -> None:
        self.folder, self.images, self.extractor = Path(folder), images, extractor
        made_of = {"images": images.sha256, "listed": len(images), "extractor_sha256": extractor.sha256}
        self._about = {"key": key, **made_of, "rows": ROWS, "size": BLOCK}

    def __len__(self) -> int:
        """How many blocks there are to be."""
        return -(-len(self.images) // BLOCK)

    def _path(self, block: int) -> Path:
        return self.folder / f"block-{block:05d}.npz"

    def __contains__(self, block: int) -> bool:
        """Whether a block is there, as far as can be told without reading its sums."""
        try:
            arrays_header(self._path(block), KIND, {**self._about, "block": block})
        except UserError:  # none, damaged or of something else: it is made (again)
            return False
        return True

    def make(self, part: int = 1, parts: int = 1) -> None:
        """Make those blocks of a part of ``parts``, counted from 1, that are not there.

        Raises UserError if too many images are unreadable, ValueError for features that are not finite.
        """
        listed = len(self.images)
        kept = torch.arange(min(ROWS, listed)) * listed // min(ROWS, listed)  # evenly spread
        unreadable: list[Unread] = []
        for block in range(part - 1, len(self), parts):
            if block in self:
                continue
            indices = range(block * BLOCK, min((block + 1) * BLOCK, listed))
            of = f", block {block + 1} of {len(self)}" if len(self) > 1 else ""
            made = Block.of(self.images.part(indices), indices, self.extractor, kept, of)
            unreadable += made.unreadable
            self.images.check(unreadable)
            made.save(self._path(block), {**self._about, "block": block})

    def gather(self) -> tuple[Statistics, list[Unread]]:
        """All blocks, whoever made them, together; and which images could not be read.

        Kept rows that could not be read are missing. Raises UserError if a block is damaged, or too many images are
        unreadable, ValueError for fewer than two images.
        """
        pool, spatial = MomentAccumulator(), MomentAccumulator()
        features: list[Tensor] = []
        unreadable: list[Unread] = []
        for number in range(len(self)):
            block = Block.load(self._path(number), {**self._about, "block": number})
            unreadable += block.unreadable
            pool.merge(block.pool)
            spatial.merge(block.spatial)
            features += [block.features] if len(block.features) else []
        self.images.check(unreadable)
        moments = pool.moments(), spatial.moments() if spatial.count else None
        names, made_of = (self.extractor.name, self.extractor.sha256), self.images.made_of(unreadable)
        return Statistics(*names, *moments, torch.cat(features), made_of=made_of), unreadable
