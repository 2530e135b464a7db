"""What has still to be trained, sampled and measured for a target, about how long that takes, and how much it writes.

Data, VAE, extractor and encoder are made once; the time that they take is counted where the scale's pace knows it.
"""

from collections import Counter
from collections.abc import Container, Iterable
from functools import cached_property
from pathlib import Path

from selftrans.config.families import Data
from selftrans.config.publications import Publication
from selftrans.config.reading.publications import load_publications
from selftrans.config.scales import Pace
from selftrans.plan import size
from selftrans.plan.cost import Work, sampling, training
from selftrans.plan.jobs import Job, Jobs
from selftrans.plan.paths import Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.reporting.pace import devices_held


class Remaining:
    """The jobs whose files are not there yet, each after those that it waits for."""

    def __init__(self, plan: Plan, files: Iterable[Path], running: Container[Path] = (), again: bool = False) -> None:
        """``files`` are what is asked for, made ``again`` if they are there.

        Of jobs, those whose logs are among ``running`` are not counted.
        """
        self.plan = plan
        self._graph = Jobs(plan)
        for path in files:
            job = self._graph.made_by(path) if again else None
            if job is None:
                self._graph.ask([path])
            else:
                self._graph.add(path, job, there=False)
        self.jobs: dict[Job, Work] = {}
        self._sources: list[Job] = []
        for job in self._graph.to_do:
            if _is_source(job):
                self._sources.append(job)
            elif job.log not in running and (work := _work(plan, job)):
                self.jobs[job] = work

    @property
    def files(self) -> list[Path]:
        """What the jobs make."""
        return [path for job in self.jobs for path in self._graph.outputs(job)]

    @property
    def sources(self) -> list[Path]:
        """What all that rests on and is not there."""
        return [path for job in self._sources for path in self._graph.outputs(job)]

    @property
    def steps(self) -> int:
        """Training steps of all jobs."""
        return sum(work.steps for work in self.jobs.values())

    @property
    def images(self) -> int:
        """Images that are sampled by all jobs."""
        return sum(work.images for work in self.jobs.values())

    @property
    def trained(self) -> set[Run]:
        """The runs that are trained, or trained further."""
        return {work.run for work in self.jobs.values() if work.steps}

    def bytes(self) -> dict[Path, int]:
        """{folder: about how much is written there} and stays; images are left out of which nobody knows how many."""
        written: Counter[Path] = Counter()
        for job in (*self.jobs, *self._sources):
            count = self._bytes_of(job)
            if count is not None:
                path, *_ = self._graph.outputs(job)
                written[self.plan.root / path.relative_to(self.plan.root).parts[0]] += count
        for run in self.trained:
            work = self.plan.path(Pattern.work, run=run.id)
            if not work.exists():
                written[work.parent] += size.state_bytes(run)
        return dict(written)

    def _bytes_of(self, job: Job) -> int | None:
        """What a job writes, of what is large."""
        plan, found = self.plan, job.wildcards
        match job.rule:
            case "train" | "import_published":
                run, step = plan.runs[found["run"]], int(found["step"])
                begin = run.milestone_before(step) or 0
                return sum(begin < passed <= step for passed in run.milestones) * size.weights_bytes(run)
            case "freeze_teacher":
                return size.teacher_bytes(plan.runs[found["run"]].backbone, int(found["layer"]))
            case "sample":
                run = plan.runs[found["run"]]
                return size.samples_bytes(run, run.preset_named(found["preset"]))
            case "pack_images":
                family = plan.scale.families[plan.family_of("data", found["data"])]
                return size.images_bytes(family.data, self._count_images(family.data, found["split"]))
            case "extract_latents":
                family = plan.scale.families[plan.family_of("latents", found["latents"])]
                return size.latents_bytes(family, self._count_images(family.data, "train"))
        return None

    @cached_property
    def _publications(self) -> dict[str, Publication]:
        return load_publications(self.plan.project.folder)

    def _count_images(self, data: Data, split: str) -> int:
        """How many images a split has, or 0 if nobody knows."""
        return size.count_images(data, split, self._publications) or 0

    def seconds(self, pace: Pace, devices: int) -> float:
        """At best: no sooner than ``devices`` do all jobs, nor than the longest chain of jobs that wait for another."""
        done: dict[Path, float] = {}  # by log
        for job in (*self._sources, *self.jobs):
            start = max((done.get(before.log, 0.0) for before in self._graph.waits_for(job)), default=0.0)
            done[job.log] = start + self._seconds_of(job, pace)
        return max(sum(self.costs(pace).values()) / devices, *done.values(), 0.0)

    def costs(self, pace: Pace) -> dict[Job, float]:
        """Seconds of all cores or GPUs that each job holds, those of sources included that the pace knows."""
        return {job: self._held(job, pace) * self._seconds_of(job, pace) for job in (*self._sources, *self.jobs)}

    def uncounted(self, pace: Pace) -> int:
        """How many jobs there are whose time the pace does not know."""
        return sum(job.rule not in pace.sources for job in self._sources)

    def _seconds_of(self, job: Job, pace: Pace) -> float:
        if job in self.jobs:
            return self.jobs[job].seconds(pace, self._held(job, pace))
        return pace.job + pace.sources[job.rule] if job.rule in pace.sources else 0.0

    def _held(self, job: Job, pace: Pace) -> int:
        """How many cores or GPUs a job has."""
        return devices_held(self.plan, pace.device, trains=job in self.jobs and self.jobs[job].steps > 0)


def _is_source(job: Job) -> bool:
    """Whether a job makes what runs rest on: data, VAE, latents, extractor, reference, encoder, published weights."""
    return "run" not in job.wildcards or job.rule == "import_published"


def _work(plan: Plan, job: Job) -> Work | None:
    """What a job of a run costs; None of those that are not counted."""
    run, found = plan.runs[job.wildcards["run"]], job.wildcards
    match job.rule:
        case "train":
            return training(run, int(found["step"]))
        case "sample":  # with its shards, which are jobs of their own
            return sampling(run, run.family.presets[run.preset_named(found["preset"])])
        case "freeze_teacher" | "evaluate":
            return Work(run)
    return None
