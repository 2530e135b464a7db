"""What has still to be trained, sampled and measured for a target, about how long that takes, and how much it writes.

Data, VAE, extractor and encoder are made once; they are not counted, but for the room that images and latents take.
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
from selftrans.reporting.text import duration


class Remaining:
    """The jobs whose files are not there yet, each after those that it waits for."""

    def __init__(self, plan: Plan, files: Iterable[Path], running: Container[Path] = ()) -> None:
        """``files`` are what is asked for; of jobs, those whose logs are among ``running`` are not counted."""
        self.plan = plan
        self._graph = Jobs(plan)
        self._graph.ask(files)
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
                return size.weights_bytes(plan.runs[found["run"]])
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
        for job, work in self.jobs.items():
            start = max((done.get(before.log, 0.0) for before in self._graph.waits_for(job)), default=0.0)
            done[job.log] = start + work.seconds(pace)
        total = sum(work.seconds(pace) for work in self.jobs.values())
        return max(total / devices, *done.values(), 0.0)

    def estimate(self, count: int) -> str | None:
        """About how long it takes, in words, on ``count`` devices of the pace's; None if the scale knows no pace."""
        pace = self.plan.scale.pace
        if pace is None:
            return None
        about = f"about {duration(self.seconds(pace, count))} on {count} {pace.device}{'s' * (count > 1)}"
        return f"{about} at the pace of {self.plan.project.scale_file}"


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
