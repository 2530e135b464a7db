"""What is paid for what remains to be done: time, hours of cores or GPUs, memory; and whether a budget allows it."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from selftrans.config.project import hours_of
from selftrans.config.scales import Pace
from selftrans.errors import UserError
from selftrans.plan.jobs import Job
from selftrans.plan.memory import PROCESS, need_with_teacher
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.plan.size import in_words
from selftrans.reporting.pace import KnownPace, known_pace
from selftrans.reporting.remaining import Remaining
from selftrans.reporting.text import duration

LARGEST = 3  # contributions that are named


class Price:
    """Of what remains to be done, at the pace that is known for it, if one is."""

    def __init__(self, remaining: Remaining) -> None:
        self.remaining, self.plan = remaining, remaining.plan
        self.known: KnownPace | None = known_pace(self.plan)

    @property
    def device(self) -> str:
        """What is counted: "core" or "GPU"."""
        return self.known.pace.device if self.known else "core"

    def hours(self, pace: Pace) -> float:
        """Of all cores or GPUs together."""
        return sum(self.remaining.costs(pace).values()) / 3600

    def estimate(self, count: int) -> str | None:
        """Time and hours, in words, on so many cores or GPUs, and whose pace that is; None if none is known."""
        if self.known is None:
            return None
        pace, source = self.known.pace, self.known.source
        text = f"about {duration(self.remaining.seconds(pace, count))} on {count} {pace.device}{'s' * (count > 1)}"
        text += f" ({hours_in_words(self.hours(pace), pace)}) at {source}"
        uncounted = self.remaining.uncounted(pace)
        return f"{text}, {uncounted} jobs for data, VAE, extractor, encoder not counted" if uncounted else text

    def memory(self) -> str | None:
        """The most that a training takes, in words; None if nothing is trained."""
        found = _largest(self.remaining.trained, self.plan.project.ranks)
        if found is None:
            return None
        run, count = found
        if self.device == "core":
            return f"about {in_words(PROCESS + count)} of memory for a process"
        return f"at least {in_words(count)} of GPU memory ({run.name})"

    def refusal(self) -> tuple[str, str] | None:
        """Why the budget does not allow it, and what to do; None if it does, or if there is no budget."""
        budget = self.plan.project.budget
        if budget is None or not (self.remaining.jobs or self.remaining.sources):
            return None
        if self.known is None:
            return (
                f"budget: {budget}, but nobody knows what this costs: {self.plan.project.scale_file} says no pace, no "
                f"training was logged under {self.plan.root / 'work'}, and no GPU of a known kind is here",
                "give the scale a pace (docs/reproducing.md), or no budget",
            )
        pace, source = self.known.pace, self.known.source
        if (hours := self.hours(pace)) <= hours_of(budget):
            return None
        return (
            f"budget: {budget} allowed, about {hours_in_words(hours, pace)} at {source} asked for, the most of it for "
            f"{self._largest_parts(pace)}",
            "raise the budget, or ask for less: another target, fewer seeds, only=<model>",
        )

    def _largest_parts(self, pace: Pace) -> str:
        """What costs the most, in words: rules by the rows that they are for."""
        parts: Counter[str] = Counter()
        for job, seconds in self.remaining.costs(pace).items():
            parts[self._name(job)] += seconds
        largest = parts.most_common(LARGEST)
        return ", ".join(f"{name} ({hours_in_words(seconds / 3600, pace)})" for name, seconds in largest if seconds)

    def _name(self, job: Job) -> str:
        run = self.plan.runs.get(job.wildcards.get("run", ""))
        return f"{job.rule} {run.name}" if run else job.rule


def require_budget(plan: Plan, files: Iterable[Path]) -> None:
    """Raise UserError if making ``files``, whether they are there or not, costs more than the plan's budget."""
    if plan.project.budget is not None and (refused := Price(Remaining(plan, files, again=True)).refusal()):
        raise UserError("; ".join(refused))


def hours_in_words(hours: float, pace: Pace) -> str:
    """Hours of the pace's cores or GPUs, or minutes."""
    if hours < 2:
        return f"{math.ceil(60 * hours)} {pace.device}-minutes"
    return f"{hours:,.{int(hours < 100)}f} {pace.device}-hours"


def _largest(runs: Iterable[Run], ranks: int) -> tuple[Run, int] | None:
    """The training that takes the most bytes."""
    found = [(run, need_with_teacher(run, ranks).total) for run in runs]
    return max(found, key=lambda one: (one[1], one[0].name), default=None)
