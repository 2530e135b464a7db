"""What a kind of row shares: data, VAE, extractor, encoder, models, optimiser, schedule."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Discriminator, Field, Tag

from selftrans.config.names import Name, not_inceptions
from selftrans.config.presets import Preset, Sweep
from selftrans.config.records import Record
from selftrans.config.signatures import Count, Decay, Epoch, Fraction, NonNegative, Positive, Rate, Seed, Size

Stored = Literal["float32", "float16"]


NOT_OF_THE_IMAGES = {"path", "max_broken", "stored", "shard", "parts"}  # fields of data


class Data(Record):
    """Where images come from: scikit-learn's digits, or files (`selftrans.data.sources` says which, and how)."""

    source: Literal["digits", "images"]
    name: Name | None = None  # of images: what files made of them are called, wherever they lie
    path: str | None = None  # of images: a folder, an archive, or a folder of parquet files
    only: tuple[str, ...] = ()  # of images: names of the classes to keep, in this order; all if none is named
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of images that are kept to test with
    max_broken: Fraction = 0.001  # share of files that may be unreadable; more of them, and nothing is made
    size: Size = 32
    classes: Size = 10
    stored: Literal["raw", "compressed"] = "raw"  # packed images: their bytes, or each as a PNG file
    shard: Size = 2048  # images to a file of packed rows
    parts: Size = 1  # jobs that share packing and encoding, each with whole shards

    @property
    def label(self) -> str:
        """What the images are called in the names of files."""
        return self.name or self.source

    @property
    def tested(self) -> bool:
        """Whether there are images to test with, which nothing is trained on."""
        return self.source == "digits" or self.held_out > 0

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides which images there are; not where they lie."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=NOT_OF_THE_IMAGES)


CLASSES = {"digits": 10}  # of sources whose classes are known


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
    moments: Stored = "float32"  # how the latents are stored

    @property
    def downsampling(self) -> int:
        """How many pixels to a side make one position of a latent."""
        return 2 ** (len(self.block_channels) - 1)


class PublishedVae(NamedTuple):
    """A VAE that other people published, and where (docs/vaes.md says more)."""

    pixels: int  # to a side of a position of a latent
    channels: int  # of a latent
    latents: str  # the latent space, which VAEs share that differ in their decoder alone
    repository: str  # on the Hugging Face Hub
    revision: str | None = None  # of the repository, where it is known
    scale: float | None = None  # published factor of raw latents; none: each channel has a mean and a deviation

    @property
    def layout(self) -> str:
        """The architecture, as papers abbreviate it."""
        return f"f{self.pixels}d{self.channels}"


MSE, EMA = "31f26fdeee1355a5c34592e401dd41e45d25a493", "f04b2c4b98319346dad8c65879f680b1997b204a"
PUBLISHED_VAES = {
    "sd-vae-ft-mse": PublishedVae(8, 4, "sd-vae", "stabilityai/sd-vae-ft-mse", MSE, scale=0.18215),
    "sd-vae-ft-ema": PublishedVae(8, 4, "sd-vae", "stabilityai/sd-vae-ft-ema", EMA, scale=0.18215),
    "va-vae": PublishedVae(16, 32, "va-vae", "hustvl/vavae-imagenet256-f16d32-dinov2"),
    "e2e-sd-vae": PublishedVae(8, 4, "e2e-sd-vae", "REPA-E/e2e-sdvae-hf"),
    "e2e-va-vae": PublishedVae(16, 32, "e2e-va-vae", "REPA-E/e2e-vavae-hf"),
}


class PublishedTokenizer(Record):
    """A published VAE; ``weights`` is the path of its file or folder (docs/vaes.md says where from).

    Another may decode, if it shares the latent space: Stable Diffusion's fine-tuned VAEs share their encoder.
    """

    published: Literal[*PUBLISHED_VAES]
    weights: str
    decoder: Literal[*PUBLISHED_VAES] | None = None
    decoder_weights: str | None = None
    normalisation: Literal["published", "measured"] = "published"  # scale and shift of the latents
    moments: Stored = "float32"  # how the latents are stored

    @property
    def downsampling(self) -> int:
        """How many pixels to a side make one position of a latent."""
        return PUBLISHED_VAES[self.published].pixels

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return PUBLISHED_VAES[self.published].channels


class ExistingLatents(Record):
    """Latents that a published VAE has made already, in other people's files, which are read where they are."""

    layout: Literal["repa", "lightningdit"]
    folder: str  # REPA's vae-sd, or LightningDiT's folder of safetensors


class ClassifierRecipe(Record):
    """A small supervised network: the feature extractor of the metrics, or the encoder of REPA rows."""

    name: Annotated[Name, AfterValidator(not_inceptions)]
    steps: Count
    batch_size: Size = 64
    learning_rate: Rate
    min_test_accuracy: Fraction
    seed: Seed = 0

    @property
    def label(self) -> str:
        """What it is called in the names of files."""
        return self.name


TOKEN_PIXELS = 16  # a token of a published encoder covers 16×16 pixels, as one of the published backbones does


class PublishedEncoder(Record):
    """A published encoder for REPA rows; ``weights`` is the path of its file (docs/encoders.md says where from)."""

    published: Literal[
        *("dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g"),
        *("dinov2-s-reg", "dinov2-b-reg", "dinov2-l-reg", "dinov2-g-reg"),
        *("dino-s", "dino-b", "mocov3-s", "mocov3-b", "mae-b", "mae-l", "clip-b", "clip-l", "ijepa-h"),
    ]
    weights: str


class PublishedExtractor(Record):
    """A published network whose features images are compared by; ``weights`` is the path of its file.

    Other weights of the same architecture go by a ``name`` of their own: what is not Inception's is never called FID.
    """

    published: Literal["inception", "dinov2-s", "dinov2-b", "dinov2-l"]
    weights: str
    name: Annotated[Name, AfterValidator(not_inceptions)] | None = None

    @property
    def label(self) -> str:
        """What it is called in the names of files."""
        return self.name or self.published


class PublishedReference(Record):
    """Published statistics that samples are compared with: an .npz as the ADM evaluation suite has.

    Its moments are those of the family's Inception, or of what goes by another name there.
    """

    name: Name
    file: str


def _of(trained: type[Record], published: type[Record]) -> Discriminator:
    """Tells a recipe from what somebody published, so that a slip is refused as what was meant."""

    def kind(value: Any) -> str:
        stated = "published" in value if isinstance(value, dict) else isinstance(value, published)
        return (published if stated else trained).__name__

    return Discriminator(kind)


def _tagged(kind: type[Record]) -> Any:
    return Annotated[kind, Tag(kind.__name__)]


Tokenizer = Annotated[_tagged(TokenizerRecipe) | _tagged(PublishedTokenizer), _of(TokenizerRecipe, PublishedTokenizer)]
Extractor = Annotated[
    _tagged(ClassifierRecipe) | _tagged(PublishedExtractor), _of(ClassifierRecipe, PublishedExtractor)
]
Encoder = Annotated[_tagged(ClassifierRecipe) | _tagged(PublishedEncoder), _of(ClassifierRecipe, PublishedEncoder)]


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
    flip: bool = False  # half of the examples that a training draws are mirrored
    tokenizer: Tokenizer
    latents: ExistingLatents | None = None  # instead of those that the VAE would make of the images
    extractor: Extractor
    second_extractor: Extractor | None = None  # beside it, for every evaluation
    reference: PublishedReference | None = None  # instead of the training images, for the extractor
    encoder: Encoder
    models: dict[Name, Model]
    steps_per_epoch: Annotated[
        int, Field(gt=0, le=10**6)
    ]  # an epoch is the paper's unit of schedule, not a pass over the data
    long_schedules: dict[Epoch, Count] = Field(default_factory=dict)  # epoch -> steps, where a scale compresses
    milestones: Annotated[
        tuple[Epoch, ...], Field(min_length=1, max_length=1000)
    ]  # in epochs; fixed, so that a new row or table never moves a boundary
    batch_size: Size  # of a step, whatever the number of devices
    micro_batch: Size | None = None  # the most that a device takes at once, no part of the recipe; all if not said
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of the forward and backward passes
    teacher_precision: Literal["bfloat16", "float8"] | None = None  # of a frozen teacher or encoder; null: the same
    compile: bool = False  # the forward and backward passes, which changes their rounding
    draws: Literal["cpu", "cuda"] = "cpu"  # the device whose generator draws noise, times and dropped labels
    optimiser: Optimiser
    average: Average = Average()
    label_dropout: Fraction = 0.1
    t_law: Literal["uniform", "logit_normal"] = "uniform"
    t_law_until: Epoch | None = None  # after this epoch times are uniform, as in LightningDiT's long recipe
    cosine_weight: NonNegative = 0.0  # of LightningDiT's second loss on the velocity
    presets: dict[Name, Preset]
    aliases: dict[Name, Name] = Field(default_factory=dict)  # other names of presets, which tables may use
    sweeps: dict[Name, Sweep] = Field(default_factory=dict)  # each adds presets <name>-cfg1.5-t0.7, ...
    stretch: Stretch = Stretch()
    overrides: tuple[Override, ...] = ()

    @property
    def encodes_packed_images(self) -> bool:
        """Whether latents are made of packed images, which a VAE trained here needs, or straight from the source."""
        return isinstance(self.tokenizer, TokenizerRecipe)

    def compares_packed_images(self, extractor: Extractor) -> bool:
        """Whether a reference of our own is made of packed images, which training VAE or extractor needs anyway."""
        return self.encodes_packed_images or isinstance(extractor, ClassifierRecipe)

    @property
    def bars(self) -> dict[str, float]:
        """What VAE, extractor and encoder must reach; they are no part of any recipe."""
        trained = isinstance(self.tokenizer, TokenizerRecipe)
        found = {"max_test_mse": self.tokenizer.max_test_mse} if trained else {}
        for kind in ("extractor", "second_extractor", "encoder"):
            recipe = getattr(self, kind)
            if isinstance(recipe, ClassifierRecipe):
                found[kind] = recipe.min_test_accuracy
        return found

    def reference_of(self, extractor: Extractor) -> PublishedReference | None:
        """The published statistics that samples are compared with through ``extractor``: they are Inception's."""
        inceptions = isinstance(extractor, PublishedExtractor) and extractor.published == "inception"
        return self.reference if inceptions else None

    def t_law_at(self, step: int) -> Literal["uniform", "logit_normal"]:
        """The law of the times that are drawn for a step, counted from 0."""
        over = self.t_law_until is not None and step >= self.step_at(self.t_law_until)
        return "uniform" if over else self.t_law

    def step_at(self, epoch: int) -> int:
        """Optimiser steps made after ``epoch`` epochs of the paper's schedule, which a scale may compress."""
        return self.long_schedules.get(epoch, epoch * self.steps_per_epoch)
