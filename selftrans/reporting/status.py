"""How far the jobs behind results are, from files alone: what is there, what is in the making, what the logs end with.

No scheduler is asked, and no process is looked for: a workflow on a cluster, seen from its login node, is as one here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from selftrans.artifacts import arrays_header
from selftrans.beats import Clocks
from selftrans.config.presets import Preset
from selftrans.failures import failure_of
from selftrans.leases import holders
from selftrans.plan.jobs import Job, Jobs
from selftrans.plan.outside import outside_of
from selftrans.plan.paths import Log, Pattern
from selftrans.plan.plan import Plan
from selftrans.plan.runs import Run
from selftrans.plan.speed import SPEED
from selftrans.reporting.remaining import Remaining
from selftrans.reporting.results import RESULTS, is_current
from selftrans.reporting.targets import inputs_of_result
from selftrans.reporting.text import duration, one_line
from selftrans.reporting.training_log import log_file
from selftrans.training.log import last_line

State = Literal["failed", "ended", "stopped", "running", "waiting", "done"]  # in the order in which they are shown
STATES: tuple[State, ...] = get_args(State)

# What a job waits for, by the rule that makes it.
MADE_BY = {
    **dict.fromkeys(("pack_images", "pack_images_part"), "images"),
    **dict.fromkeys(("train_tokenizer", "import_tokenizer"), "a VAE"),
    **dict.fromkeys(("extract_latents", "extract_latents_part"), "latents"),
    **dict.fromkeys(("train_extractor", "import_extractor"), "an extractor"),
    **dict.fromkeys(("make_reference", "make_reference_part", "import_reference"), "a reference"),
    **dict.fromkeys(("train_encoder", "import_encoder"), "an encoder"),
    **dict.fromkeys(("train", "import_published"), "weights"),
    **dict.fromkeys(("sample", "sample_shard"), "samples"),
    **{"freeze_teacher": "a teacher", "evaluate": "metrics", "probe_features": "features"},
}
FAILED, OUTSIDE, TURN = "what failed", "files from outside", "their turn"
RECENT = 10  # batches or shards whose dates tell the pace


@dataclass(frozen=True)
class Progress:
    """How much of something is made, and how fast."""

    made: int
    total: int
    unit: str
    rate: float | None = None  # a second

    @property
    def seconds(self) -> float | None:
        """Until all is made, if that can be told."""
        return (self.total - self.made) / self.rate if self.rate else None

    @property
    def speed(self) -> str:
        """The rate in words."""
        if not self.rate:
            return ""
        return f"{self.rate:.3g} {self.unit}/s" if self.rate >= 0.1 else f"{60 * self.rate:.3g} {self.unit}/min"

    def __str__(self) -> str:
        return f"{self.made} of {self.total} {self.unit}"


@dataclass(frozen=True)
class Report:
    """How far a job is; or the trainings of a run, which are jobs one after the other."""

    job: str  # its log below logs/; of a run, train/<run>
    state: State
    reason: str | None = None  # what it said last; of one that waits, what for
    where: str | None = None  # it runs
    log: Path | None = None
    progress: Progress | None = None

    @property
    def left(self) -> float | None:
        """Seconds until it is there, of one that runs."""
        return self.progress.seconds if self.state == "running" and self.progress else None

    def record(self) -> dict[str, str | int | float | None]:
        """For machines."""
        progress = self.progress
        counted = {key: getattr(progress, key, None) for key in ("made", "total", "unit", "rate")}
        said = {"reason": self.reason, "where": self.where, "log": None if self.log is None else str(self.log)}
        return {"job": self.job, "state": self.state, **said, **counted, "seconds_left": self.left}

    def cells(self) -> list[str]:
        """For people: state, job, how far, how fast, how long still, where or why."""
        speed = self.progress.speed if self.state == "running" and self.progress else ""
        ahead = "" if self.left is None else f"{duration(self.left)} left"
        said = ": ".join(str(part) for part in (self.log, self.reason) if part is not None)
        return [self.state, self.job, str(self.progress or ""), speed, ahead, self.where or said]


class Status:
    """How far the jobs are that results, or other files of a plan, rest on."""

    def __init__(self, plan: Plan, results: Iterable[str], files: Iterable[Path] = ()) -> None:
        """``results`` are names of tables and figures; raises UserError if the plan has no such figure."""
        self.plan = plan
        self.jobs = Jobs(plan)
        self._clocks = Clocks()
        self._looks: dict[Path, Report | None] = {}  # by log
        self._blocked: dict[Path, bool] = {}  # by log
        for name in results:
            self.jobs.add(RESULTS / name, _result(plan, name), is_current(plan, name))
        self.jobs.ask(files)

    @cached_property
    def reports(self) -> list[Report]:
        """Of every job that is done or has to be, those of a run together, by state and name."""
        reports = [self._report(name, jobs) for name, jobs in self._to_do.items()]
        reports += [Report(name, "done") for name in self._grouped(self.jobs.done) if name not in self._to_do]
        return sorted(reports, key=lambda report: (STATES.index(report.state), report.job))

    def remaining(self) -> Remaining:
        """What is trained, sampled and measured by jobs that do not run yet."""
        named = [report.job for report in self.reports if report.state == "running"]
        running = {job.log for name in named for job in self._to_do.get(name, ())}
        return Remaining(self.plan, [path for job in self.jobs.to_do for path in self.jobs.outputs(job)], running)

    @cached_property
    def _to_do(self) -> dict[str, list[Job]]:
        return self._grouped(self.jobs.to_do)

    def _grouped(self, jobs: Iterable[Job]) -> dict[str, list[Job]]:
        """{name: jobs}: the trainings of a run in their order, and each other job by itself."""
        named = sorted((self._name(job), int(job.wildcards.get("step", 0)), job.name, job) for job in jobs)
        return {name: [job for *_, job in group] for name, group in groupby(named, key=lambda found: found[0])}

    def _name(self, job: Job) -> str:
        return f"train/{job.wildcards['run']}" if job.rule == "train" else job.name

    def _report(self, name: str, jobs: Sequence[Job]) -> Report:
        """Of jobs one after the other, none of which is done: the first is the one to look at."""
        job, progress = jobs[0], self._progress(jobs)
        found = self._look(job)
        if found is None and self._was_begun(job, progress):
            found = Report(name, "stopped", "begun by hand; the same command goes on")
        if found is None:
            found = Report(name, "waiting", self._waits_for(job))
        return replace(found, job=name, progress=progress)

    def _was_begun(self, job: Job, progress: Progress | None) -> bool:
        """Whether somebody made a part of what this job alone has to make."""
        if progress is None or self.jobs.waits_for(job):
            return False
        run = self.plan.runs.get(job.wildcards.get("run", ""))
        before = run.milestone_before(int(job.wildcards["step"])) if run and job.rule == "train" else None
        return (before or 0) < progress.made < progress.total

    # ------------------------------------------------------------------------------------------ what a job is at

    def _look(self, job: Job) -> Report | None:
        """A job as its log and its working folder tell; None if it has not begun."""
        if job.log not in self._looks:
            self._looks[job.log] = self._look_at(job)
        return self._looks[job.log]

    def _look_at(self, job: Job) -> Report | None:
        about = {"job": job.name, "log": job.log if job.log.exists() else None}
        held_by = [holder for folder in self._work(job) for holder in holders(folder)]
        for holder in held_by:
            if not holder.is_gone and self._clocks.is_alive(holder.path):
                return Report(**about, state="running", where=str(holder))
        failure = failure_of(job.log)
        if failure is not None:
            state, said = "failed" if failure.final else "stopped", one_line(failure.sentence)
            return Report(**about, state=state, reason=said)
        if job.rule in ("table", "claims", "compute", "figure") and self.jobs.waits_for(job):
            return None  # their names are fixed: the log is that of an earlier making
        if self._clocks.is_alive(job.log):
            return Report(**about, state="running")
        if held_by or job.log.exists():
            return Report(**about, state="ended", reason="without a word (killed?); the same command goes on")
        return None

    def _waits_for(self, job: Job) -> str:
        """What a job that has not begun waits for."""
        before = self.jobs.waits_for(job)
        if any(map(self._is_blocked, before)):
            return FAILED
        if before:
            return MADE_BY[before[0].rule]
        brought = all(found.path.exists() for found in outside_of(self.plan, self.jobs.outputs(job)))
        return TURN if brought else OUTSIDE

    def _is_blocked(self, job: Job) -> bool:
        """Whether a job failed, or waits for one that did."""
        if job.log not in self._blocked:
            found = self._look(job)
            failed = found is not None and found.state == "failed"
            self._blocked[job.log] = failed or any(map(self._is_blocked, self.jobs.waits_for(job)))
        return self._blocked[job.log]

    def _work(self, job: Job) -> list[Path]:
        """The working folders that no other job writes to at the same time."""
        found = job.wildcards
        if job.rule == "train":
            return [self.plan.path(Pattern.work, run=found["run"])]
        if job.rule in ("sample", "sample_shard"):
            part = f"{found.get('shard', 1)}-of-{found.get('shards', 1)}"
            return [folder / part for folder in self._batches(job)]
        return []

    def _batches(self, job: Job) -> list[Path]:
        """The folders of a job's batches, one for each making of the weights."""
        return self._drawn.get("{run}.step-{step}.{preset}".format(**job.wildcards), [])

    @cached_property
    def _drawn(self) -> dict[str, list[Path]]:
        """{run, step and preset: folders of batches}."""
        there = self.plan.root / Path(Pattern.batches).parent
        folders = sorted(there.iterdir()) if there.exists() else []
        named = groupby(folders, key=lambda folder: folder.name.rpartition(".")[0])
        return {name: list(group) for name, group in named}

    # ------------------------------------------------------------------------------------------ how far it is

    def _progress(self, jobs: Sequence[Job]) -> Progress | None:
        """What is in the making, of a kind of which that can be told; None if nothing is."""
        job, found = jobs[0], jobs[0].wildcards
        match job.rule:
            case "train":
                return self._trained(self.plan.runs[found["run"]], jobs)
            case "sample" | "sample_shard":
                return self._sampled(job)
            case "pack_images" | "pack_images_part":
                return _packed(self.plan.path(Pattern.images, **found), found)
            case "extract_latents" | "extract_latents_part":
                return _packed(self.plan.path(Pattern.latents, **found), found)
        return None

    def _trained(self, run: Run, jobs: Sequence[Job]) -> Progress | None:
        """Steps up to the last milestone that is asked for, at the pace of the last that were logged."""
        path, until = log_file(self.plan, run), int(jobs[-1].wildcards["step"])
        line = last_line(path, run.id)
        return None if line is None else Progress(min(line["step"], until), until, "steps", line["steps_per_second"])

    def _sampled(self, job: Job) -> Progress | None:
        """Batches of all samples, or of a shard."""
        preset = _preset_of(self.plan, job)
        own = preset.batches_of(int(job.wildcards.get("shard", 1)), int(job.wildcards.get("shards", 1)))
        found = [path for folder in self._batches(job) for path in folder.glob("batch-*.npz") if _number(path) in own]
        return Progress(len(found), len(own), "batches", _pace(found)) if found else None


def _packed(folder: Path, found: Mapping[str, str]) -> Progress | None:
    """Shards of a folder of packed rows, or of a part of it."""
    there = sorted(folder.glob("shard-*.npz"))
    if not there:
        return None
    about = arrays_header(there[0], "packed shard")
    part, parts = int(found.get("part", 1)), int(found.get("parts", 1))
    own = range(part - 1, -(-about["listed"] // about["size"]), parts)
    made = [path for path in there if _number(path) in own]
    return Progress(len(made), len(own), "shards", _pace(made)) if made else None


def _number(path: Path) -> int:
    """Which batch or shard a file is."""
    return int(path.stem.rpartition("-")[2])


def _pace(files: Iterable[Path]) -> float | None:
    """How many files were made a second, by the dates of the last of them."""
    dates = sorted(path.stat().st_mtime for path in files)[-RECENT:]
    return (len(dates) - 1) / (dates[-1] - dates[0]) if len(dates) > 1 and dates[-1] > dates[0] else None


def _preset_of(plan: Plan, job: Job) -> Preset:
    family = plan.runs[job.wildcards["run"]]
    return family.family.presets[family.preset_named(job.wildcards["preset"])]


def _result(plan: Plan, name: str) -> Job:
    """The job that makes a result, other than index and page. Raises UserError if there is no such figure."""
    inputs, table = inputs_of_result(plan, name), plan.project.tables.get(name)
    if table is not None:
        rule, wildcards, inputs = "table", {"table": name}, [*inputs, *plan.reports_of(table)]
    elif name in plan.targets:
        rule, wildcards = name, {}
    elif name == SPEED:
        rule, wildcards = SPEED, {}
    else:
        rule, wildcards = "figure", {"figure": name.removeprefix("figures/")}
    return Job(rule, plan.path(getattr(Log, rule), **wildcards), tuple(inputs), wildcards)


def begun(plan: Plan) -> list[Path]:
    """The next weights of every run that has a log, or those that it ended with."""
    found = []
    for run in plan.runs.values():
        line = last_line(log_file(plan, run), run.id)
        if line is not None:
            steps = [step for step in (*run.ends, *run.milestones) if step >= line["step"]]
            found += [plan.weights(run, step) for step in steps[:1]]
    return found


# ------------------------------------------------------------------------------------------------ for people


def in_words(reports: Sequence[Report]) -> str:
    """How many are in which state."""
    if not reports:
        return "nothing"
    counts = Counter(report.state for report in reports)
    rest = [f"{counts[state]} {state}" for state in STATES[:-1] if counts[state]]
    return ", ".join([f"{counts['done']} of {len(reports)} done", *rest])


def in_columns(reports: Sequence[Report], everything: bool = False) -> list[str]:
    """A line for each that is neither done nor waits, or for ``everything``, in columns."""
    shown = [report.cells() for report in reports if everything or report.state not in ("waiting", "done")]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    rows = [[cell.ljust(width) for cell, width in zip(cells, widths, strict=True) if width] for cells in shown]
    return ["  ".join(row).rstrip() for row in rows]


def reasons(reports: Sequence[Report]) -> str | None:
    """What how many wait for, or None if none does."""
    counts = Counter(report.reason for report in reports if report.state == "waiting")
    return "waiting: " + ", ".join(f"{n} for {what}" for what, n in counts.most_common()) if counts else None
