"""Squared distances of many points of many dimensions: bounds at a low price, exact ones at a high one.

A matrix product in bfloat16 or float32 says where the squared distance of each pair lies, with an error that is
known, at a fraction of what float64 costs. The exact distance of a pair is summed in float64 over the differences.
"""

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
from torch import Tensor

PIECE = 64  # pairs whose exact distances are taken at a time, and
BLOCK = 256  # points that are rounded at a time: in float64 they fit into a core's cache
MARGIN = 1e-6  # of a reach, for its own rounding
TINY = 1e-30  # below it, float32 has no small relative error


def squared_distances(a: Tensor, i: Tensor, b: Tensor, j: Tensor) -> Tensor:
    """|a[i] - b[j]|² (P,) float64 of P pairs; exactly 0 for copies, and the same whichever way round."""
    pieces = [
        a.index_select(0, left).double().sub_(b.index_select(0, right)).square_().sum(dim=1)
        for left, right in zip(i.split(PIECE), j.split(PIECE), strict=True)
    ]
    return torch.cat(pieces)


class Points:
    """A set of points (N, D), and the same in low precisions, in units of ``scale`` about ``centre`` (D,)."""

    def __init__(self, points: Tensor, centre: Tensor, scale: float) -> None:
        self.exact, self.scale = points, scale
        self.rounded = cache(lambda dtype: Rounded.of(points, centre, scale, dtype))

    def __len__(self) -> int:
        return len(self.exact)


def in_one_frame(a: Tensor, b: Tensor) -> tuple[Points, Points]:
    """Two sets of points (N, D) and (M, D) about the mean of the first, so scaled that no length is much over 1."""
    largest = max(points.abs().max().item() for points in (a, b))
    scale = 2.0 ** math.ceil(math.log2(math.sqrt(a.shape[1]) * largest or 1.0))  # exact to divide by
    centre = a.mean(dim=0, dtype=torch.float64)
    return Points(a, centre, scale), Points(b, centre, scale)


@cache
def precisions() -> tuple[torch.dtype, ...]:
    """From the quickest to the one that tells all apart; bfloat16 only on processors that have it in hardware."""
    quick = [torch.bfloat16] if 1.2 * _seconds(torch.bfloat16) < _seconds(torch.float32) else []
    return (*quick, torch.float32, torch.float64)


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return min(times)


@dataclass(frozen=True)
class Rounded:
    """Points in a low precision (N, D), their true squared lengths (N,), the largest relative error of a point."""

    points: Tensor
    squares: Tensor
    error: float

    @classmethod
    def of(cls, points: Tensor, centre: Tensor, scale: float, dtype: torch.dtype) -> Self:
        """``points`` in units of ``scale`` about ``centre``."""
        rounded, squares, error = [], [], 0.0
        for block in points.split(BLOCK):
            true = (block.double() - centre).mul_(1 / scale)
            rounded.append(true.to(dtype))
            squares.append(true.square().sum(dim=1))
            wrong = (true - rounded[-1]).square().sum(dim=1) / squares[-1].clamp_min(TINY)
            error = max(error, wrong.max().sqrt().item())
        return cls(torch.cat(rounded), torch.cat(squares), error)


@dataclass(frozen=True)
class Pairs:
    """Pairs of a point i of one set and a point j of another, with bounds on their squared distance: (P,) each."""

    i: Tensor
    j: Tensor
    lower: Tensor
    upper: Tensor

    def __len__(self) -> int:
        return len(self.i)

    def __getitem__(self, keep: Tensor) -> "Pairs":
        return Pairs(self.i[keep], self.j[keep], self.lower[keep], self.upper[keep])

    @property
    def swapped(self) -> "Pairs":
        """The same, seen from the other side."""
        return Pairs(self.j, self.i, self.lower, self.upper)

    @classmethod
    def joined(cls, parts: "list[Pairs]") -> Self:
        """One after the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("i", "j", "lower", "upper")))


class Screen:
    """Bounds on the squared distances of points of two sets, in units of their scale, from products in ``dtype``.

    With rounded points u' and |u - u'| ≤ ρ |u|, a product of two is known to (2ρ + ρ² + γ) |u| |v|, where γ is that
    of a sum of D terms and of a result in ``dtype``; and twice |u| |v| is at most |u|² + |v|², so that each point
    has an error of its own.
    """

    def __init__(self, a: Points, b: Points, dtype: torch.dtype) -> None:
        self.a, self.b = a.rounded(dtype), b.rounded(dtype)
        self.sums = torch.float64 if dtype == torch.float64 else torch.float32
        rho = max(self.a.error, self.b.error)
        gamma = (torch.finfo(dtype).eps + (a.exact.shape[1] + 16) * torch.finfo(self.sums).eps) / 2
        self.error = (1 + rho) ** 2 * (1 + gamma) - 1

    def lower(self, rows: slice, columns: slice) -> Tensor:
        """Lower bounds (R, C)."""
        a, b = (
            ((1 - self.error) * low.squares[index] - TINY).to(self.sums)
            for low, index in ((self.a, rows), (self.b, columns))
        )
        return (a[:, None] + b).add_(self.a.points[rows] @ self.b.points[columns].T, alpha=-2)

    def width(self, i: Tensor, j: Tensor) -> Tensor:
        """How much higher the upper bounds of pairs are."""
        return 2 * self.error * (self.a.squares[i] + self.b.squares[j]) + 4 * TINY

    def pairs(self, bounds: Tensor, chosen: Tensor, rows: slice, columns: slice) -> Pairs:
        """Those of ``rows`` and ``columns`` that are ``chosen`` (R, C) among the lower ``bounds`` (R, C)."""
        i, j = chosen.nonzero().unbind(dim=1)
        lower, i, j = bounds[i, j].double(), i + rows.start, j + columns.start
        return Pairs(i, j, lower, lower + self.width(i, j))

    def near(self, rows: slice, columns: slice, reach_a: Tensor, reach_b: Tensor) -> Pairs:
        """The pairs that may be as near as the reach of one of them, in ``reach_a`` (N,) or ``reach_b`` (M,)."""
        bounds = self.lower(rows, columns)
        chosen = bounds <= (1 + MARGIN) * reach_a[rows, None].to(self.sums)
        chosen |= bounds <= (1 + MARGIN) * reach_b[columns].to(self.sums)
        return self.pairs(bounds, chosen, rows, columns)
