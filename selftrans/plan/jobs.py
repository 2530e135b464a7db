"""The jobs behind the files of a plan: what each makes, of what, and where its output goes.

The Snakefile's rules say the same to Snakemake. Here it can be asked without it, of a workflow that runs elsewhere or
not at all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selftrans.config.families import ClassifierRecipe, TokenizerRecipe
from selftrans.plan.paths import Log, Pattern, wildcards_of
from selftrans.plan.plan import Plan

IMAGES = f"{Pattern.images}/manifest.json"  # what tells that a folder of packed rows is whole
LATENTS = f"{Pattern.latents}/manifest.json"

Wildcards = dict[str, str]


@dataclass(frozen=True, eq=False)
class Job:
    """A call of a verb by the workflow; its log tells it from all others."""

    rule: str  # one of `Log`
    log: Path
    inputs: tuple[Path, ...]
    wildcards: Wildcards

    @property
    def name(self) -> str:
        """The log's place among all logs."""
        return self.log.as_posix().rpartition("/logs/")[2].removesuffix(".log")


class Jobs:
    """All jobs that some files rest on."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._jobs: dict[Path, Job] = {}  # by log, each after those that make its inputs
        self._needed: dict[Path, bool] = {}  # by log
        self._outputs: dict[Path, set[Path]] = {}  # by log: those of a job's files that something rests on
        self._made_by: dict[Path, Job | None] = {}
        self._there: dict[Path, bool] = {}

    def ask(self, paths: Iterable[Path], needed: bool = True) -> None:
        """Add the jobs that make ``paths``, and those that these rest on.

        What a file that is there was made of is not ``needed``, whether it is still there or not.
        """
        for path in paths:
            job = self.made_by(path)
            if job is None:
                continue
            self._outputs.setdefault(job.log, set()).add(path)
            missed = needed and not self.is_there(path)
            if job.log not in self._needed or missed > self._needed[job.log]:
                self.ask(job.inputs, missed)
                self._jobs[job.log], self._needed[job.log] = job, missed

    def add(self, path: Path, job: Job, there: bool) -> None:
        """Add the ``job`` that makes a file which is no other's input, and which is ``there`` if its reader says so."""
        self._made_by[path], self._there[path] = job, there
        self.ask([path])

    @property
    def to_do(self) -> list[Job]:
        """The jobs that have still to be done, each after those that it waits for."""
        return [job for job in self._jobs.values() if self._needed[job.log]]

    @property
    def done(self) -> list[Job]:
        """The jobs whose files are there. Others, whose files were temporary or are gone, are not missed."""
        found = (job for job in self._jobs.values() if not self._needed[job.log])
        return [job for job in found if any(map(self.is_there, self._outputs[job.log]))]

    def outputs(self, job: Job) -> set[Path]:
        """Those of a job's files that something rests on."""
        return self._outputs[job.log]

    def is_there(self, path: Path) -> bool:
        """Whether a file was there when it was looked for first."""
        if path not in self._there:
            self._there[path] = path.exists()
        return self._there[path]

    def waits_for(self, job: Job) -> list[Job]:
        """The jobs that make what is not there yet of a job's inputs."""
        found = (self.made_by(path) for path in job.inputs if not self.is_there(path))
        return [before for before in found if before is not None]

    def made_by(self, path: Path) -> Job | None:
        """The job that makes a file, or None if no job of the plan does."""
        if path not in self._made_by:
            self._made_by[path] = job_of(self.plan, path)
        return self._made_by[path]


def job_of(plan: Plan, path: Path) -> Job | None:
    """The job that makes a file under the scale's folder, or None if no job of the plan does."""
    if not path.is_relative_to(plan.root):
        return None
    below = path.relative_to(plan.root)
    for pattern, rule_of in RULES.items():
        found = wildcards_of(pattern, below)
        if found is not None and ("run" not in found or found["run"] in plan.runs):
            rule, inputs = rule_of(plan, found)
            return Job(rule, plan.path(getattr(Log, rule), **found), tuple(inputs), found)
    return None


# ---------------------------------------------------------------- what makes what: (rule, inputs) of a file's wildcards

Made = tuple[str, list[Path]]


def _images(plan: Plan, found: Wildcards) -> Made:
    return "pack_images", _parts(plan, plan.family_of("data", found["data"]), Pattern.images_part, found)


def _images_part(plan: Plan, found: Wildcards) -> Made:
    return "pack_images_part", []


def _tokenizer(plan: Plan, found: Wildcards) -> Made:
    family = plan.family_of("tokenizer", found["tokenizer"])
    if isinstance(plan.scale.families[family].tokenizer, TokenizerRecipe):
        return "train_tokenizer", _splits(plan, family, "train", "test")
    return "import_tokenizer", []


def _latents(plan: Plan, found: Wildcards) -> Made:
    family = plan.family_of("latents", found["latents"])
    _, inputs = _latents_part(plan, found)
    return "extract_latents", [*inputs, *_parts(plan, family, Pattern.latents_part, found)]


def _latents_part(plan: Plan, found: Wildcards) -> Made:
    family = plan.family_of("latents", found["latents"])
    images = _splits(plan, family, "train") if plan.scale.families[family].encodes_packed_images else []
    return "extract_latents_part", [*images, plan.path(Pattern.tokenizer, tokenizer=plan.keys[family].tokenizer)]


def _extractor(plan: Plan, found: Wildcards) -> Made:
    judge = plan.judges[found["extractor"]]
    if isinstance(judge.recipe, ClassifierRecipe):
        return "train_extractor", _splits(plan, judge.family, "train", "test")
    return "import_extractor", []


def _reference(plan: Plan, found: Wildcards) -> Made:
    judge = plan.judges[found["extractor"]]
    if judge.reference is not None:
        return "import_reference", [plan.path(Pattern.extractor, **found)]
    _, inputs = _reference_part(plan, found)
    return "make_reference", [*inputs, *_parts(plan, judge.family, Pattern.reference_part, found)]


def _reference_part(plan: Plan, found: Wildcards) -> Made:
    judge = plan.judges[found["extractor"]]
    packed = plan.scale.families[judge.family].compares_packed_images(judge.recipe)
    images = _splits(plan, judge.family, "train") if packed else []
    return "make_reference_part", [*images, plan.path(Pattern.extractor, extractor=found["extractor"])]


def _encoder(plan: Plan, found: Wildcards) -> Made:
    family = plan.family_of("encoder", found["encoder"])
    if isinstance(plan.scale.families[family].encoder, ClassifierRecipe):
        return "train_encoder", _splits(plan, family, "train", "test")
    return "import_encoder", []


def _weights(plan: Plan, found: Wildcards) -> Made:
    run, step = plan.runs[found["run"]], int(found["step"])
    if run.row.published is not None:
        return "import_published", []
    before = run.milestone_before(step)
    inputs = [] if before is None else [plan.weights(run, before)]
    inputs.append(plan.path(Pattern.latent_stats, latents=run.keys.latents))
    if run.needs_images and run.teacher is None:
        inputs += _splits(plan, run.row.family, "train")
        inputs.append(plan.path(Pattern.encoder, encoder=run.keys.encoder))
    if run.teacher is not None and run.is_guided(step):
        inputs.append(plan.teacher_file(run.teacher))
    return "train", inputs


def _teacher(plan: Plan, found: Wildcards) -> Made:
    return "freeze_teacher", [plan.weights(plan.runs[found["run"]], int(found["step"]), found["weights"])]


def _samples(plan: Plan, found: Wildcards) -> Made:
    run = plan.runs[found["run"]]
    shards = run.family.presets[run.preset_named(found["preset"])].shards
    numbers = range(1, shards + 1) if shards > 1 else ()
    drawn = [plan.path(Pattern.shard, **found, shard=number, shards=shards) for number in numbers]
    return "sample", [*_shard(plan, found)[1], *drawn]


def _shard(plan: Plan, found: Wildcards) -> Made:
    run, step = plan.runs[found["run"]], int(found["step"])
    inputs = [plan.weights(run, step), plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer)]
    if run.row.published is None:
        inputs.append(plan.path(Pattern.latent_stats, latents=run.keys.latents))
    return "sample_shard", inputs


def _metrics(plan: Plan, found: Wildcards) -> Made:
    patterns = (Pattern.samples, Pattern.extractor, Pattern.reference)
    return "evaluate", [plan.path(pattern, **found) for pattern in patterns]


def _features(plan: Plan, found: Wildcards) -> Made:
    run = plan.runs[found["run"]]
    _, source = plan.probed(run, int(found["step"]), found["layers"])
    vae = plan.path(Pattern.tokenizer, tokenizer=run.keys.tokenizer)
    stats = plan.path(Pattern.latent_stats, latents=run.keys.latents)
    return "probe_features", [source, vae, stats, *_splits(plan, run.row.family, found["split"])]


def _splits(plan: Plan, family: str, *splits: str) -> list[Path]:
    """The packed images of a family."""
    return [plan.path(IMAGES, data=plan.keys[family].data, split=split) for split in splits]


def _parts(plan: Plan, family: str, pattern: str, found: Wildcards) -> list[Path]:
    """What tells that each part of packed rows is made, if a family's data share the work among jobs."""
    parts = plan.scale.families[family].data.parts
    numbers = range(1, parts + 1) if parts > 1 else ()
    return [plan.path(pattern, **found, part=number, parts=parts) for number in numbers]


RULES = {
    Pattern.metrics: _metrics,
    Pattern.samples: _samples,
    Pattern.shard: _shard,
    Pattern.ema: _weights,
    Pattern.online: _weights,
    Pattern.teacher: _teacher,
    Pattern.features: _features,
    IMAGES: _images,
    Pattern.images_part: _images_part,
    Pattern.tokenizer: _tokenizer,
    Pattern.tokenizer_report: _tokenizer,
    LATENTS: _latents,
    Pattern.latent_stats: _latents,
    Pattern.latents_part: _latents_part,
    Pattern.extractor: _extractor,
    Pattern.extractor_report: _extractor,
    Pattern.reference: _reference,
    Pattern.reference_part: _reference_part,
    Pattern.encoder: _encoder,
    Pattern.encoder_report: _encoder,
}
