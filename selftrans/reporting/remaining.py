"""What has still to be trained, sampled and measured for a target, about how long that takes, and how much it writes.

Data, VAE, extractor and encoder are made once; they are not counted, but for the room that images and latents take.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selftrans.config.reading.publications import load_publications
from selftrans.config.scales import Pace
from selftrans.plan import size
from selftrans.plan.cost import Work, sampling, training
from selftrans.plan.paths import Pattern, wildcards_of
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run, Teacher
from selftrans.plan.sources import MANIFEST, missing_sources
from selftrans.reporting.text import duration


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
        asked: dict[Path, Run] = {}
        for path in files:
            if not path.exists() and (origin := plan.origin(path)):
                self._made(path, *origin)
                asked[path] = origin[0]
        made = asked | {path: job.work.run for path, job in self.jobs.items()}
        self.sources = missing_sources(plan, made.items())  # what all that rests on and is not there: {file: run}

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

    def bytes(self) -> dict[Path, int]:
        """{folder: about how much is written there} and stays; images are left out of which nobody knows how many."""
        written: Counter[Path] = Counter()
        for path, job in self.jobs.items():
            found = path.relative_to(self.plan.root)
            if job.work.steps:
                written[path.parent.parent] += size.weights_bytes(job.work.run)
            elif wildcards := wildcards_of(Pattern.teacher, found):
                written[path.parent] += size.teacher_bytes(job.work.run.backbone, int(wildcards["layer"]))
            elif wildcards := wildcards_of(Pattern.samples, found):
                written[path.parent] += size.samples_bytes(job.work.run, job.work.run.preset_named(wildcards["preset"]))
        for run in self.trained:
            work = self.plan.path(Pattern.work, run=run.id)
            if not work.exists():
                written[work.parent] += size.state_bytes(run)
        publications = load_publications(self.plan.project.folder)
        for path, run in self.sources.items():
            data, folder = run.family.data, path.parent
            if wildcards := wildcards_of(Pattern.images, folder.relative_to(self.plan.root)):
                count = size.count_images(data, wildcards["split"], publications) or 0
                written[folder.parent.parent] += size.images_bytes(data, count)
            elif path.name == MANIFEST:
                count = size.count_images(data, "train", publications) or 0
                written[folder.parent] += size.latents_bytes(run.family, count)
            elif wildcards_of(Pattern.ema, path.relative_to(self.plan.root)):  # published
                written[folder.parent] += size.weights_bytes(run)
        return dict(written)

    def seconds(self, pace: Pace, devices: int) -> float:
        """At best: no sooner than ``devices`` do all jobs, nor than the longest chain of jobs that wait for another."""
        done: dict[Path, float] = {}
        for path, job in self.jobs.items():
            start = max((done.get(found, 0.0) for found in job.waits_for), default=0.0)
            done[path] = start + job.work.seconds(pace)
        total = sum(job.work.seconds(pace) for job in self.jobs.values())
        return max(total / devices, *done.values(), 0.0)

    def estimate(self, count: int) -> str | None:
        """About how long it takes, in words, on ``count`` devices of the pace's; None if the scale knows no pace."""
        pace = self.plan.scale.pace
        if pace is None:
            return None
        about = f"about {duration(self.seconds(pace, count))} on {count} {pace.device}{'s' * (count > 1)}"
        return f"{about} at the pace of {self.plan.project.scale_file}"

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
