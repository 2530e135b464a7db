"""What a configuration says, as frozen records; `selftrans.loading` reads and checks the files. No torch here.

``config/config.yaml`` names the scale and the number of seeds; ``config/scales/<scale>.yaml`` says how big
everything is; ``config/runs.yaml`` states each training once, in the paper's epochs; ``config/tables.yaml``
lists tables as references to runs.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from selftrans.records import Record
from selftrans.signatures import Count, Decay, Epoch, Fraction, NonNegative, Positive, Rate, Seed, Size, Window

NAME = r"[a-z0-9][a-z0-9._-]{0,59}"
NAME_IN_WORDS = "a name of at most 60 lower-case letters, digits, dots, dashes and underscores, such as sit-b2"

# Without dots, which part the name of a run from the rest of a file's name.
ROW = r"[a-z0-9][a-z0-9_-]{0,59}"
ROW_IN_WORDS = "a name of at most 60 lower-case letters, digits, dashes and underscores, such as sit-b2"


def _form(pattern: str, words: str) -> AfterValidator:
    """A check of a text's form that says in words what is allowed."""

    def check_form(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check_form)


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("each name once")
    return names


def _not_inceptions(name: str) -> str:
    if "inception" in name:
        raise ValueError("a name without 'inception', over whose features alone a Fréchet distance is a FID")
    return name


Name = Annotated[str, _form(NAME, NAME_IN_WORDS)]
RowName = Annotated[str, _form(ROW, ROW_IN_WORDS)]
RowNames = Annotated[tuple[RowName, ...], Field(min_length=1), AfterValidator(_different)]
Seeds = Annotated[int, Field(gt=0, le=1000)]
# Without zeros before the epoch, so that one milestone has one reference.
REFERENCE = f"({ROW})@(0|[1-9][0-9]{{0,5}})"
ReferenceText = Annotated[str, _form(REFERENCE, "<run>@<epoch>, such as sit-b2@80")]


# ---------------------------------------------------------------------------------------------- scale


class Data(Record):
    """Where images come from."""

    source: Literal["digits"]
    size: Size = 32
    classes: Size = 10


CLASSES = {"digits": 10}  # of each source


class TokenizerRecipe(Record):
    """The VAE (diffusers.AutoencoderKL) and how it is trained; ``max_test_mse`` is its bar."""

    block_channels: Annotated[tuple[Size, ...], Field(min_length=1, max_length=10)]
    latent_channels: Size = 4
    layers_per_block: Size = 1
    norm_groups: Size = 8
    middle_attention: bool = False  # in the middle block, as in Stable Diffusion's
    steps: Count
    batch_size: Size = 32
    learning_rate: Rate
    kl_weight: NonNegative
    l1_weight: NonNegative
    max_test_mse: Positive
    seed: Seed = 0


class ClassifierRecipe(Record):
    """A small supervised network: the feature extractor of the metrics, or the encoder of REPA rows."""

    name: Annotated[Name, AfterValidator(_not_inceptions)]
    steps: Count
    batch_size: Size = 64
    learning_rate: Rate
    min_test_accuracy: Fraction
    seed: Seed = 0


TOKEN_PIXELS = 16  # a token of a published encoder covers 16×16 pixels, as one of the published backbones does


class PublishedEncoder(Record):
    """A published encoder for REPA rows; ``weights`` is the path of its file (docs/encoders.md says where from)."""

    published: Literal[
        *("dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g"),
        *("dinov2-s-reg", "dinov2-b-reg", "dinov2-l-reg", "dinov2-g-reg"),
        *("dino-s", "dino-b", "mocov3-s", "mocov3-b", "mae-b", "mae-l", "clip-b", "clip-l", "ijepa-h"),
    ]
    weights: str


def _kind_of_encoder(value: Any) -> str:
    published = isinstance(value, PublishedEncoder) or (isinstance(value, dict) and "published" in value)
    return "PublishedEncoder" if published else "ClassifierRecipe"


Encoder = Annotated[
    Annotated[ClassifierRecipe, Tag("ClassifierRecipe")] | Annotated[PublishedEncoder, Tag("PublishedEncoder")],
    Discriminator(_kind_of_encoder),
]


class Model(Record):
    """A backbone's architecture."""

    backbone: Literal["sit", "lightningdit"] = "sit"
    depth: Size
    width: Size
    heads: Size
    patch_size: Size = 2
    qk_norm: bool = False
    projector_width: Size = 2048  # hidden width of the methods' projectors
    checkpoint_activations: bool = False  # less memory, more time, the same weights


class Optimiser(Record):
    """AdamW with a constant learning rate after a linear warm-up, and a clipped gradient norm."""

    learning_rate: Rate
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    clip: Positive | None = 1.0  # the largest norm of a step's gradient; null for any


class Average(Record):
    """The exponential moving average of the weights."""

    decay: Decay = 0.9999
    warmup: bool = False


class Preset(Record):
    """How samples are drawn. ``like`` a published one of presets.yaml, it holds only what differs from that."""

    sampler: Literal["euler_ode", "heun_ode", "dopri5_ode", "euler_maruyama_sde"]
    steps: Annotated[int, Field(ge=2, le=10**6)] | None = None  # none for dopri5, which chooses its own
    samples: Count
    labels: Literal["balanced", "uniform"] = "balanced"
    to_uint8: Literal["dit", "repa"] = "dit"
    batch_size: Size = 250
    time_shift: Positive = 1.0  # more than 1 spends more steps near the noise
    cfg_scale: Annotated[float, Field(ge=0, le=1e3)] = 1.0  # of classifier-free guidance; 1 is none
    cfg_interval: Window = (0.0, 1.0)  # times at which it acts
    cfg_channels: Size | None = None  # the first few that it acts on, or all
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    shards: Size = 1  # jobs that share the work, each with whole batches

    @property
    def batches(self) -> int:
        """How many batches there are, the last perhaps smaller."""
        return -(-self.samples // self.batch_size)

    @property
    def recipe(self) -> str:
        """All that samples depend on, as JSON; no fields at their default, so that a new one changes nothing."""
        return self.model_dump_json(exclude_defaults=True, exclude={"shards"})


class Sweep(Record):
    """Presets that differ from ``preset`` in their classifier-free guidance: every scale up to every time."""

    preset: Name
    cfg_scale: Annotated[tuple[Annotated[float, Field(gt=0, le=1e3)], ...], Field(min_length=1, max_length=100)]
    cfg_until: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, max_length=100)]

    def presets(self, base: Preset) -> dict[str, Preset]:
        """{name's ending: preset}."""
        return {
            f"cfg{scale:g}-t{until:g}": base.model_copy(update={"cfg_scale": scale, "cfg_interval": (0.0, until)})
            for scale in self.cfg_scale
            for until in self.cfg_until
        }


class Stretch(Record):
    """Factors on the paper's epochs, where the scale's size demands them; the reason is part of it."""

    teacher: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    stop: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    reason: str = ""


class Override(Record):
    """Fields that a scale sets in rows whose name matches a pattern, with the reason."""

    rows: str
    set: dict[str, Any]
    reason: str


class Family(Record):
    """What a kind of row shares: data, VAE, optimiser, sampler and evaluation."""

    data: Data
    tokenizer: TokenizerRecipe
    extractor: ClassifierRecipe
    encoder: Encoder
    models: dict[Name, Model]
    steps_per_epoch: Annotated[
        int, Field(gt=0, le=10**6)
    ]  # an epoch is the paper's unit of schedule, not a pass over the data
    long_schedules: dict[Epoch, Count] = Field(default_factory=dict)  # epoch -> steps, where a scale compresses
    milestones: Annotated[
        tuple[Epoch, ...], Field(min_length=1, max_length=1000)
    ]  # in epochs; fixed, so that a new row or table never moves a boundary
    batch_size: Size
    optimiser: Optimiser
    average: Average = Average()
    label_dropout: Fraction = 0.1
    t_law: Literal["uniform", "logit_normal"] = "uniform"
    cosine_weight: NonNegative = 0.0  # of LightningDiT's second loss on the velocity
    presets: dict[Name, Preset]
    sweeps: dict[Name, Sweep] = Field(default_factory=dict)  # each adds presets <name>-cfg1.5-t0.7, ...
    stretch: Stretch = Stretch()
    overrides: tuple[Override, ...] = ()

    @property
    def bars(self) -> dict[str, float]:
        """What VAE, extractor and encoder must reach; they are no part of any recipe."""
        bars = {"max_test_mse": self.tokenizer.max_test_mse, "extractor": self.extractor.min_test_accuracy}
        encoder = self.encoder
        return bars | ({"encoder": encoder.min_test_accuracy} if isinstance(encoder, ClassifierRecipe) else {})

    def step_at(self, epoch: int) -> int:
        """Optimiser steps made after ``epoch`` epochs of the paper's schedule, which a scale may compress."""
        return self.long_schedules.get(epoch, epoch * self.steps_per_epoch)


class ClaimOverride(Record):
    """Fields that a scale sets in a claim, with the reason."""

    set: dict[str, Any]
    reason: str


class Threads(Record):
    """CPU threads of a job, by what it does."""

    train: Size = 1
    other: Size = 1


class Pace(Record):
    """How long work takes a core, measured; for estimates of time only, no result depends on it."""

    step: Positive  # microseconds of a training step, per block and token
    image: Positive  # microseconds of a sampler's step for an image, per block and token
    job: Positive  # seconds until a job is at work


class Scale(Record):
    """How big everything is, and what readers of its tables should know."""

    name: Name
    description: str
    families: dict[Name, Family]
    threads: Threads = Threads()
    pace: Pace | None = None  # without it there are no estimates of time
    claims: dict[Name, ClaimOverride] = Field(default_factory=dict)  # where this size needs another comparison
    notes: dict[str, str] = Field(default_factory=dict)  # table name -> Markdown under that table


# ----------------------------------------------------------------------------------------------- rows


class Row(Record):
    """One training, stated once. ``like`` another row, it holds only what differs from that one."""

    family: Name
    model: Name
    method: dict[str, Any] | None = None  # {"name": ..., its settings}; none for the diffusion loss alone
    weight: NonNegative | None = None  # of the method's loss
    stop: Epoch | None = None  # epoch after which the method's loss, and its cost, are gone
    teacher: ReferenceText | None = None
    teacher_weights: Literal["ema", "online"] = "ema"
    initial_weights: Literal["shared", "own"] = "shared"  # one initialisation per seed for all rows, or its own


# What a table may say of a run (reporting/tables.py says it).
Column = Literal[
    "layers",
    "guidance_scale",
    "weight",
    "guiding_model",
    "teacher_epochs",
    "teacher_steps",
    "stop_steps",
    "stage1",
    "guided",
]


class TableRow(Record):
    """A line of a table: which run at which epoch, or without a run another system, cited with the paper's values."""

    label: str
    run: ReferenceText | None = None
    compare_with: ReferenceText | None = None  # instead of the table's
    preset: Name | None = None  # instead of the table's
    paper: dict[str, float | str] = Field(default_factory=dict)  # its line of the table's file


class Table(Record):
    """A table: columns that describe the run, then our metrics, beside the paper's if it has them."""

    title: str
    paper: str | None = None  # a file of config/paper, line by line in the order of `rows`
    paper_samples: str = "10K"  # that the paper's values were measured on
    preset: Name
    sweep: Name | None = None  # of the rows' family: each row stands there once for each of its presets
    second_preset: Name | None = None  # the same weights through another sampler, at seed 0
    compare_with: ReferenceText | None = None  # paired differences against this run, seed by seed
    columns: tuple[Column, ...]
    rows: Annotated[tuple[TableRow, ...], Field(min_length=1)]

    @property
    def trained(self) -> tuple[TableRow, ...]:
        """The rows that are not only cited."""
        return tuple(row for row in self.rows if row.run is not None)


class Reduction(Record):
    """By which share the metric of ``of`` is smaller than that of ``against``: 1 - of / against."""

    of: ReferenceText
    against: ReferenceText


class Claim(Record):
    """A comparative claim of the paper: a metric of one run, or a reduction of it, is better than of another."""

    says: str
    source: str  # where the paper says it
    metric: Literal["frechet", "inception_score"] = "frechet"
    better: ReferenceText | Reduction
    worse: ReferenceText | Reduction
    table: Name | None = None  # the table that has the paper's values of these runs
    paper: dict[Literal["better", "worse"], float] = Field(default_factory=dict)  # taken from there
    preset: Name = "headline"
    seeds: Seeds | None = None  # at most, where as many as other claims have would take too long

    @property
    def references(self) -> dict[str, str]:
        """{key in the file: run@epoch} of all runs that the claim compares."""
        found = {}
        for key, side in self.sides.items():
            parts = {key: side} if isinstance(side, str) else {f"{key}.of": side.of, f"{key}.against": side.against}
            found |= parts
        return found

    @property
    def sides(self) -> dict[Literal["better", "worse"], ReferenceText | Reduction]:
        """Both sides by their key in the file."""
        return {"better": self.better, "worse": self.worse}

    def values(self, metric_of: Callable[[str], float]) -> dict[Literal["better", "worse"], float]:
        """The value of each side, where ``metric_of`` knows the metric of a run@epoch."""
        return {
            key: metric_of(side) if isinstance(side, str) else 1 - metric_of(side.of) / metric_of(side.against)
            for key, side in self.sides.items()
        }


class Settings(Record):
    """config/config.yaml: what `--config` on the command line changes."""

    scale: Annotated[str, Field(max_length=500)] = "demo"
    seeds: Seeds = 1
    claim_seeds: Seeds = 4
    only: Annotated[str, Field(max_length=500)] | None = (
        None  # models, or patterns of runs' names: tables keep these rows
    )


class Asked(Settings):
    """What `--config` of a call of Snakemake may say; what it leaves out is as config.yaml has it."""

    folder: str | None = None  # of the configuration, instead of config/
    scale: Annotated[str, Field(max_length=500)] | None = None
    seeds: Seeds | None = None
    claim_seeds: Seeds | None = None


class Project(Record):
    """All of a configuration folder at one scale, before references are resolved."""

    folder: Path
    scale: Scale
    scale_file: Path
    rows: dict[RowName, Row]
    tables: dict[Name, Table]
    claims: dict[Name, Claim]
    seeds: Seeds
    claim_seeds: Seeds
    only: str | None
