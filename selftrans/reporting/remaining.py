"""What has still to be trained, sampled and measured for a target, and about how long that takes.

Data, VAE, extractor and encoder are made once and are not counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selftrans.config.scales import Pace
from selftrans.plan.cost import Work, sampling, training
from selftrans.plan.paths import Pattern, wildcards_of
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run, Teacher


@dataclass(frozen=True)
class Job:
    """What makes one file: the files it waits for, and its work."""

    waits_for: tuple[Path, ...]
    work: Work


class Remaining:
    """The jobs whose files are not there yet, each after those that it waits for."""

    def __init__(self, plan: Plan, files: Iterable[Path]) -> None:
        """``files`` are metrics, samples, weights or features; others are not counted."""
        self.plan = plan
        self.jobs: dict[Path, Job] = {}  # by the file that each makes
        for path in files:
            if not path.exists() and (origin := plan.origin(path)):
                self._made(path, *origin)

    def _made(self, path: Path, run: Run, step: int) -> None:
        found = path.relative_to(self.plan.root)
        if wildcards := wildcards_of(Pattern.metrics, found):
            self._measured(path, run, step, run.preset_named(wildcards["preset"]))
        elif wildcards := wildcards_of(Pattern.samples, found):
            self._sampled(run, step, run.preset_named(wildcards["preset"]))
        else:
            self._trained(run, step)

    @property
    def steps(self) -> int:
        """Training steps of all jobs."""
        return sum(job.work.steps for job in self.jobs.values())

    @property
    def images(self) -> int:
        """Images that are sampled by all jobs."""
        return sum(job.work.images for job in self.jobs.values())

    @property
    def trained(self) -> set[Run]:
        """The runs that are trained, or trained further."""
        return {job.work.run for job in self.jobs.values() if job.work.steps}

    def seconds(self, pace: Pace, devices: int) -> float:
        """At best: no sooner than ``devices`` do all jobs, nor than the longest chain of jobs that wait for another."""
        done: dict[Path, float] = {}
        for path, job in self.jobs.items():
            start = max((done.get(found, 0.0) for found in job.waits_for), default=0.0)
            done[path] = start + job.work.seconds(pace)
        total = sum(job.work.seconds(pace) for job in self.jobs.values())
        return max(total / devices, *done.values(), 0.0)

    def _measured(self, path: Path, run: Run, step: int, preset: str) -> None:
        if path not in self.jobs:
            samples = self._sampled(run, step, preset)
            self.jobs[path] = Job((samples,), Work(run))

    def _sampled(self, run: Run, step: int, preset: str) -> Path:
        path = self.plan.samples_file(run, step, preset)
        if not path.exists() and path not in self.jobs:
            weights = self._trained(run, step)
            self.jobs[path] = Job((weights,), sampling(run, run.family.presets[preset]))
        return path

    def _trained(self, run: Run, step: int, kind: str = "ema") -> Path:
        """The weights at a milestone; a job makes those of both kinds and goes on from the milestone before."""
        path = self.plan.weights(run, step)
        if run.row.published is None and not self.plan.weights(run, step, kind).exists() and path not in self.jobs:
            waits_for = []
            if (before := run.milestone_before(step)) is not None:
                waits_for.append(self._trained(run, before))
            if run.teacher is not None and run.is_guided(step):
                waits_for.append(self._frozen(run.teacher))
            self.jobs[path] = Job(tuple(waits_for), training(run, step))
        return path

    def _frozen(self, teacher: Teacher) -> Path:
        path = self.plan.teacher_file(teacher)
        if not path.exists() and path not in self.jobs:
            weights = self._trained(teacher.run, teacher.step, teacher.weights)
            self.jobs[path] = Job((weights,), Work(teacher.run))
        return path
