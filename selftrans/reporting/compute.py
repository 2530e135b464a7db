"""What a FLOP buys: distances against everything that was paid, and where a method's curve meets vanilla training's.

Costs are compared by their logarithms. Between two milestones of a curve the distance is taken to be linear in the
logarithm of the cost; before the first and after the last nothing is known of it, so that a cost which lies there is
known by a bound alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, isinf, log
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

import pandas as pd

from selftrans.errors import UserError
from selftrans.plan.flops import Cost, petaflop, spent
from selftrans.plan.plan import Plan
from selftrans.reporting.claims import judge
from selftrans.reporting.tables import check_comparable, read_metrics

Curve = Sequence[tuple[float, float]]  # (cost, distance) of the milestones, by growing cost

Verdict = Literal["cheaper", "dearer", "undecided"]


class Between(NamedTuple):
    """What is known of a logarithm: it is from ``low`` to ``high``, which are the same where it is known itself."""

    low: float
    high: float

    def __sub__(self, other: "Between") -> "Between":
        """What is known of the difference."""
        return Between(self.low - other.high, self.high - other.low)


def reached(curve: Curve, distance: float) -> Between:
    """The logarithm of the cost at which a curve first comes down to ``distance``.

    At most that of the first milestone, if the curve begins there or below; at least that of the last, if it never
    comes down so far.
    """
    logs = [(log(cost), found) for cost, found in curve]
    if logs[0][1] <= distance:
        return Between(-inf, logs[0][0])
    for (before, above), (after, below) in pairwise(logs):
        if below <= distance:
            at = before + (above - distance) / (above - below) * (after - before)
            return Between(at, at)
    return Between(logs[-1][0], inf)


def ahead_from(curve: Curve, other: Curve) -> Between:
    """The logarithm of the cost from which on a curve lies below the other one, as far as both are known.

    At most the first cost that both are known at, if it always does; at least the last, if there it does not; anything
    if there is no such cost.
    """
    first, last = (pick(curve[end][0], other[end][0]) for pick, end in ((max, 0), (min, -1)))
    if first > last:
        return Between(-inf, inf)
    costs = sorted({first, last, *(cost for cost, _ in (*curve, *other) if first < cost < last)})
    above = [(log(cost), _at(curve, cost) - _at(other, cost)) for cost in costs]
    if above[-1][1] >= 0:
        return Between(above[-1][0], inf)
    for (before, more), (after, less) in reversed(list(pairwise(above))):
        if more >= 0:
            at = before + more / (more - less) * (after - before)
            return Between(at, at)
    return Between(-inf, above[0][0])


def _at(curve: Curve, cost: float) -> float:
    """The distance of a curve at a cost between its first and its last."""
    for (before, first), (after, second) in pairwise(curve):
        if before <= cost <= after:
            return first + (second - first) * log(cost / before) / log(after / before)
    return curve[0][1]  # of one milestone


@dataclass(frozen=True)
class Estimate:
    """A geometric mean over seeds; where some are known by bounds alone, those of the mean, and nothing else."""

    mean: float | None
    low: float | None  # of the 95 % confidence interval, for two seeds and more
    high: float | None
    least: float | None  # bounds of the mean, where there are any
    most: float | None
    known: int  # seeds at which the value itself is


def over_seeds(logs: Sequence[Between]) -> Estimate:
    """The mean of values whose logarithms these are, one for each seed.

    A seed that is known by a bound alone is not left out, since those would be the seeds that favour one side: the
    mean is then known by a bound too, and has no interval.
    """
    low, high = (mean(bounds) for bounds in zip(*logs, strict=True))
    known = sum(found.low == found.high for found in logs)
    if known < len(logs):
        least, most = (None if isinf(bound) else exp(bound) for bound in (low, high))
        return Estimate(None, None, None, least, most, known)
    interval = judge([found.low for found in logs], [0.0] * len(logs))
    ends = [None if end is None else exp(end) for end in (interval.low, interval.high)]
    return Estimate(exp(low), *ends, exp(low), exp(low), known)


def verdict(ratio: Estimate) -> Verdict | None:
    """Whether a ratio of costs differs from 1 beyond its noise; None where there is no interval to tell by."""
    if ratio.low is None:
        return None
    return "cheaper" if ratio.high < 1 else "dearer" if ratio.low > 1 else "undecided"


# ------------------------------------------------------------------------------------------------- the runs

PARTS = {"student": "student", "projector": "projector", "target": "target", "stage1": "stage 1"}


def build_curves(plan: Plan) -> pd.DataFrame:
    """One line for each row of compute.yaml, milestone and seed: what was paid, by what it was for, and the distance.

    Raises UserError if nothing is to be compared, or if metrics are missing or not comparable.
    """
    if not plan.curves:
        raise UserError(f"{plan.project.folder / 'compute.yaml'}: nothing to compare of the rows that are kept")
    by_file = {path: read_metrics(path) for path in plan.metrics_of_compute()}
    check_comparable(by_file)
    lines = []
    for name, curve in plan.curves.items():
        for epoch in curve.epochs:
            run, step = plan.milestone(f"{name}@{epoch}", curve.seeds[0])
            cost = spent(run, step)
            for seed in curve.seeds:
                found = by_file[plan.metrics(f"{name}@{epoch}", seed, plan.project.compute.preset)]
                line = {"run": name, "epochs": epoch, "steps": step, "seed": seed, **_petaflops(cost)}
                about = {key: found[key] for key in ("samples", "extractor")}
                lines.append(line | {"frechet": found["frechet"], **about})
    return pd.DataFrame(lines)


def _petaflops(cost: Cost) -> dict[str, float]:
    parts = {f"pflop_{part}": petaflop(getattr(cost, part)) for part in PARTS}
    return {"pflop": petaflop(cost.total), **parts}


def build_compute(plan: Plan, curves: pd.DataFrame) -> pd.DataFrame:
    """One line for each row of compute.yaml at its last milestone: what was paid until there, and two comparisons.

    ``final_*`` is at the distance at which vanilla training ends, ``both_*`` at the smallest that both reach.
    ``_ratio`` is the row's cost over vanilla training's to there, seed by seed, ``final_pflop`` the row's.
    ``ahead_pflop`` is what must be paid until the row is ahead of vanilla training that was paid the same. Behind each
    stand its interval, bounds, and at how many seeds it is known.
    """
    vanilla = plan.project.compute.vanilla
    lines = []
    for name, points in curves.groupby("run", sort=False):
        last = points[points["epochs"] == points["epochs"].max()]
        line: dict[str, Any] = {"run": name, "epochs": last["epochs"].iloc[0], "steps": last["steps"].iloc[0]}
        line |= {column: last[column].iloc[0] for column in last if column.startswith("pflop")}
        distances = list(last["frechet"])
        line["frechet"] = mean(distances)
        line["frechet_std"] = stdev(distances) if len(distances) > 1 else None
        if name != vanilla:
            line |= _compared(_by_seed(points), _by_seed(curves[curves["run"] == vanilla]))
        example = {key: last[key].iloc[0] for key in ("samples", "extractor")}
        lines.append(line | {"seeds": len(last), **example, "scale": plan.scale.name})
    return pd.DataFrame(lines).convert_dtypes()


def _by_seed(points: pd.DataFrame) -> dict[int, Curve]:
    """{seed: (cost, distance) of its milestones}."""
    groups = points.sort_values("pflop").groupby("seed")
    return {seed: list(zip(found["pflop"], found["frechet"], strict=True)) for seed, found in groups}


def _compared(curves: dict[int, Curve], vanillas: dict[int, Curve]) -> dict[str, Any]:
    """A row beside vanilla training, seed by seed."""
    pairs = [(curve, vanillas[seed]) for seed, curve in curves.items()]
    line = _columns("final_pflop", over_seeds([reached(own, vanilla[-1][1]) for own, vanilla in pairs]))
    best = [max(min(distance for _, distance in curve) for curve in pair) for pair in pairs]
    ends = {"final": [vanilla[-1][1] for _, vanilla in pairs], "both": best}
    for at, distances in ends.items():
        both = zip(pairs, distances, strict=True)
        ratio = over_seeds([reached(own, end) - reached(vanilla, end) for (own, vanilla), end in both])
        line |= _columns(f"{at}_ratio", ratio) | {f"{at}_verdict": verdict(ratio)}
    return line | _columns("ahead_pflop", over_seeds([ahead_from(own, vanilla) for own, vanilla in pairs]))


def _columns(name: str, found: Estimate) -> dict[str, Any]:
    """The mean under ``name``, the rest behind it."""
    rest = {key: getattr(found, key) for key in ("low", "high", "least", "most", "known")}
    return {name: found.mean} | {f"{name}_{key}": value for key, value in rest.items()}
