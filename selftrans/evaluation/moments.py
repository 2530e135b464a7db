"""Mean and covariance of a set of features, gathered batch by batch in float64."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import scipy.linalg
import torch
from torch import Tensor

from selftrans.evaluation.checks import require_covariance, require_rows, require_same_width

BLOCK = 4096  # rows that are float64 at one time: 64 MiB at D = 2048
WAITING = 1024  # rows that are gathered first, since each addition touches all D² sums


@dataclass(frozen=True, eq=False)
class Moments:
    """Number of rows, mean (D,) and covariance (D, D; ddof = 1) of a set of features, in float64.

    The number is None for moments of somebody who does not tell it. Raises ValueError if there are fewer than
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

    @classmethod
    def from_features(cls, features: Tensor) -> Self:
        """Moments of an (N, D) matrix. Raises ValueError if N < 2 or a row is not finite."""
        accumulator = MomentAccumulator()
        for block in features.split(BLOCK):
            accumulator.update(block)
        return accumulator.moments()

    @cached_property
    def factor(self) -> Tensor:
        """R (D, rank) with R Rᵀ = covariance; computed once, however often the set is compared.

        What lies below ``rounding`` is left out: a noise of about 1e-16, whose root, 1e-8 in each of a thousand
        null directions (dead ReLUs, or fewer rows than dimensions), would show in the distance. Cholesky is the
        quick way. Where a matrix has negative eigenvalues, as singular ones that were stored in float32, its
        factor does not give it back; the eigenvectors then make that of the nearest covariance.
        """
        rounding = 2 * len(self.mean) * torch.finfo(torch.float64).eps * self.covariance.norm().item()
        root = _pivoted_cholesky(self.covariance, rounding)
        if (root @ root.T - self.covariance).norm() <= rounding:
            return root
        values, vectors = torch.linalg.eigh(self.covariance)
        kept = values > rounding
        return vectors[:, kept] * values[kept].sqrt()


def _pivoted_cholesky(matrix: Tensor, tolerance: float) -> Tensor:
    """R (D, rank) with R Rᵀ = ``matrix`` (D, D), always going on with the largest variance that is left.

    It ends where that is at most ``tolerance``. LAPACK's own, D eps / 2 of the largest variance, is exceeded by the
    rounding of some small covariances, since the elimination makes that grow.
    """
    lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(matrix.numpy(), tol=tolerance, lower=1)
    root = torch.empty(len(matrix), rank, dtype=matrix.dtype)
    root[torch.from_numpy(pivots).long() - 1] = torch.from_numpy(lower)[:, :rank].tril()
    return root


class MomentAccumulator:
    """Adds up batches of features of shape (n, D); `moments` may be asked at any time.

    Sums are taken about the first batch's mean: about the origin, a feature with a large mean and a
    small variance would lose the variance to cancellation.
    """

    def __init__(self) -> None:
        self.count = 0
        self._shift: Tensor | None = None
        self._waiting: list[Tensor] = []

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
