"""The images of a data source in order, decoded by threads, batch by batch, without a packed copy."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from selftrans.data.packed import check_unreadable
from selftrans.data.packing import read_images
from selftrans.data.shards import Unread
from selftrans.data.sources import Source, Unreadable
from selftrans.errors import UserError

BATCH_BYTES = 1 << 26  # of a batch's pixels


@dataclass(frozen=True)
class ImageStream:
    """A source's images, without those that cannot be read.

    ``where`` says in sentences where they lie; ``max_broken`` is the share that may be unreadable.
    """

    source: Source
    where: str
    size: int  # of the images, (3, size, size)
    threads: int = 1
    max_broken: float = 0.0

    def __len__(self) -> int:
        """As many as are listed."""
        return len(self.source)

    @property
    def sha256(self) -> str:
        """Of what decides which images are listed."""
        return self.source.sha256

    def part(self, indices: range) -> "StreamPart":
        """Those of a range."""
        return StreamPart(self, indices)

    def check(self, unreadable: Sequence[Unread]) -> None:
        """Raise UserError if these are too many to be missing, or all."""
        check_unreadable(self.where, unreadable, len(self), self.max_broken)
        if len(unreadable) == len(self):
            raise UserError(f"{self.where}: none of {len(self)} images could be read")

    def made_of(self, unreadable: Sequence[Unread]) -> dict[str, Any]:
        """What decides whether other images are these, but for the ``unreadable``."""
        left_out = {"unreadable": [index for index, *_ in unreadable]} if unreadable else {}
        return {"listing": self.sha256, "size": [self.size, self.size], **left_out}


@dataclass(frozen=True)
class StreamPart:
    """Images of a range; those that cannot be read are listed in ``unreadable``."""

    stream: ImageStream
    indices: range
    unreadable: list[Unread] = field(default_factory=list)

    def __len__(self) -> int:
        """As many as are listed."""
        return len(self.indices)

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """Tensors (n, 3, size, size) uint8 of ``batch_size`` images, or fewer if they are large.

        Raises UserError if too many images are unreadable.
        """
        self.unreadable.clear()
        batch: list[Tensor] = []
        most = max(1, min(batch_size, BATCH_BYTES // (3 * self.stream.size**2)))
        with closing(read_images(self.stream.source, self.indices, self.stream.threads, 2 * batch_size)) as images:
            for index, image in zip(self.indices, images, strict=True):
                if isinstance(image, Unreadable):
                    self.unreadable.append((index, image.name, image.reason))
                    self.stream.check(self.unreadable)
                    continue
                batch.append(image)
                if len(batch) == most:
                    yield torch.stack(batch)
                    batch.clear()
        if batch:
            yield torch.stack(batch)
