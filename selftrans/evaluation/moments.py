"""Mean and covariance of a set of features, gathered batch by batch in float64."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from selftrans.evaluation.checks import require_covariance, require_rows, require_same_width

BLOCK = 4096  # rows that are float64 at one time: 64 MiB at D = 2048
SUMS = ("shift", "sum", "products")
WAITING = 1024  # rows that are gathered first, since each addition touches all D² sums


@dataclass(frozen=True, eq=False)
class Moments:
    """Number of rows, mean (D,) and covariance (D, D; ddof = 1) of a set of features, in float64.

    The number is None for moments of somebody who does not tell it. A covariance that float32 has rounded to one that
    is not quite symmetric is made so. Raises ValueError if there are fewer than
    two rows, or if mean and covariance cannot be those of any set: not finite, not symmetric, a negative
    variance, or shapes that do not fit.
    """

    count: int | None
    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}")
        require_covariance(self.mean, self.covariance)
        if not torch.equal(self.covariance, self.covariance.T):
            object.__setattr__(self, "covariance", (self.covariance + self.covariance.T) / 2)

    @classmethod
    def from_features(cls, features: Tensor) -> Self:
        """Moments of an (N, D) matrix. Raises ValueError if N < 2 or a row is not finite."""
        return MomentAccumulator.of(features).moments()


class MomentAccumulator:
    """Adds up batches of features of shape (n, D); `moments` may be asked at any time.

    Sums are taken about the first batch's mean: about the origin, a feature with a large mean and a
    small variance would lose the variance to cancellation.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: Tensor | None = None
        self._waiting: list[Tensor] = []

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """That has seen an (N, D) matrix. Raises ValueError if it is empty, or a row is not finite."""
        accumulator = cls()
        for block in features.split(BLOCK):
            accumulator.update(block)
        return accumulator

    @classmethod
    def of_sums(cls, sums: Mapping[str, Tensor]) -> Self:
        """That knows what another one knew."""
        accumulator = cls()
        if sums:
            accumulator.count = int(sums["count"])
            accumulator._shift, accumulator._sum, accumulator._products = (sums[name] for name in SUMS)
        return accumulator

    def sums(self) -> dict[str, Tensor]:
        """All that it knows, to its last bit; nothing, of one that has seen nothing."""
        if self._shift is None:
            return {}
        self._add_waiting()
        values = (self._shift, self._sum, self._products)
        return {"count": torch.tensor(self.count), **dict(zip(SUMS, values, strict=True))}

    def update(self, features: Tensor) -> None:
        """Add a batch. Raises ValueError if it is empty, not finite, or of another width than the first."""
        require_rows(features, "features", first_row=self.count)
        if self._shift is None:
            self._start(features.double().mean(dim=0))
        require_same_width(features, self._shift, "features of two batches")
        self.count += len(features)
        self._waiting.append(features)
        if sum(map(len, self._waiting)) >= WAITING:
            self._add_waiting()

    def merge(self, other: "MomentAccumulator") -> None:
        """Add all that ``other`` has seen, for example on another rank."""
        if other.count == 0:
            return
        if self._shift is None:
            self._start(other._shift)
        self._add_waiting()
        other._add_waiting()
        require_same_width(other._shift, self._shift, "features of two accumulators")
        gap = other._shift - self._shift
        cross = torch.outer(other._sum, gap)
        self._products += other._products + cross + cross.T + other.count * torch.outer(gap, gap)
        self._sum += other._sum + other.count * gap
        self.count += other.count

    def moments(self) -> Moments:
        """Moments of all rows so far. Raises ValueError if they are fewer than two."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {self.count}")
        self._add_waiting()
        offset = self._sum / self.count
        scatter = self._products - self.count * torch.outer(offset, offset)
        return Moments(self.count, self._shift + offset, scatter / (self.count - 1))

    def _add_waiting(self) -> None:
        if self._waiting:
            shifted = torch.cat(self._waiting).double() - self._shift
            self._waiting.clear()
            self._sum += shifted.sum(dim=0)
            self._products.addmm_(shifted.T, shifted)

    def _start(self, shift: Tensor) -> None:
        self._shift = shift
        self._sum = torch.zeros_like(shift)  # of row - shift
        self._products = shift.new_zeros(len(shift), len(shift))  # of (row - shift)(row - shift)ᵀ
