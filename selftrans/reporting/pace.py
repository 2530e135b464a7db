"""How fast work goes: as trainings went here, else as the scale says, else by what a GPU could do at most."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from selftrans.config.scales import Pace
from selftrans.gpus import kinds
from selftrans.plan.cost import steps_between
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan

EVERY = 4  # lines at the end of a log, of which one is looked at
LINES = 5  # without so many of them a run is too young to tell
SLOWEST = 0.005  # steps a second, below which a log says 0
END = 16_384  # bytes of a log that are read
LINE = re.compile(
    rb'"run": "(?P<run>[^"]+)", "step": (?P<step>[1-9]\d{0,9}),.* "steps_per_second": (?P<speed>\d{1,9}\.\d{1,2}),'
)
PEAKS = {  # 10^12 dense bfloat16 operations a second
    **dict.fromkeys(("A100", "A800"), 312),
    **dict.fromkeys(("H100", "H200", "H800"), 989),
    "L40S": 362,
    "RTX 4090": 165,
}
SHARE = 0.35  # of the peak, that a training reaches
START = 60.0  # seconds until a job is at work on a GPU


@dataclass(frozen=True)
class KnownPace:
    """A pace, and where it is from."""

    pace: Pace
    source: str


def known_pace(plan: Plan) -> KnownPace | None:
    """The pace that a plan's jobs are expected to have; None if nothing tells."""
    stated = plan.scale.pace
    like = stated or _alike(device_of(plan), 1.0)
    if factors := list(measured(plan, like)):
        of = "a run" if len(factors) == 1 else f"{len(factors)} runs"
        source = f"the pace that {of} had whose logs are in {plan.root / 'work'}"
        return KnownPace(like.times(median(factors)), source)
    if stated:
        return KnownPace(stated, f"the pace of {plan.project.scale_file}")
    return by_peak(plan)


def device_of(plan: Plan) -> str:
    """What the scale's runs are trained on, as far as it says."""
    return "GPU" if any(family.draws == "cuda" for family in plan.scale.families.values()) else "core"


def measured(plan: Plan, like: Pace) -> Iterator[float]:
    """How many times as fast as ``like`` each run trained, of those that have trained long enough to tell.

    It is taken to have had as many cores or GPUs as the plan gives a training.
    """
    held = devices_held(plan, like.device)
    without_start = like.model_copy(update={"job": 0.0})
    for run in plan.runs.values():
        speeds = recent_speeds(plan.path(Pattern.work, run=run.id) / "log.jsonl", run.id)
        if len(speeds) >= LINES:
            expected = sum(steps_between(run, step - 1, step).seconds(without_start, held) for step in speeds)
            yield expected / sum(1 / speed for speed in speeds.values())


def recent_speeds(path: Path, run: str) -> dict[int, float]:
    """{step: steps per second, up to that}, of some lines near the end of a run's log; {} if there is no log.

    For an estimate seals need not be checked, and lines that are damaged, or of another run, say nothing.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        begin = max(0, file.seek(0, os.SEEK_END) - END)
        file.seek(begin)
        whole = file.read().split(b"\n")[int(begin > 0) : -1]
    found = (match for line in whole[::-EVERY] if (match := LINE.search(line)) and match["run"] == run.encode())
    return {int(match["step"]): max(float(match["speed"]), SLOWEST) for match in found}


def devices_held(plan: Plan, device: str, trains: bool = True) -> int:
    """How many cores or GPUs a job has, one that trains or another."""
    threads = plan.scale.threads
    ranks = plan.project.ranks if trains else 1
    return ranks if device == "GPU" else ranks * (threads.train if trains else threads.other)


def by_peak(plan: Plan) -> KnownPace | None:
    """A share of what this machine's GPU does at most; None without a GPU that is known, or in another precision."""
    if any(family.precision != "bfloat16" for family in plan.scale.families.values()):
        return None
    for name in PEAKS:
        if any(name in kind for kind in kinds()):
            source = f"{SHARE:.0%} of the {PEAKS[name]} TFLOP/s that an {name} does at most"
            return KnownPace(_alike("GPU", SHARE * PEAKS[name] * 1e3 / 2), source)  # of two operations, one multiplies
    return None


def _alike(device: str, rate: float) -> Pace:
    """A pace of which nothing but a rate is known."""
    return Pace(device=device, training=rate, sampling=rate, job=START)
