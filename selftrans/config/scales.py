"""A scale: how big everything is."""

from typing import Annotated, Any, Literal

from pydantic import Field

from selftrans.config.families import Family
from selftrans.config.names import Name, Seeds
from selftrans.config.records import Record
from selftrans.config.signatures import NonNegative, Positive, Size


class ClaimOverride(Record):
    """Fields that a scale sets in a claim, with the reason."""

    set: dict[str, Any]
    reason: str


class Threads(Record):
    """CPU threads of a job, by what it does."""

    train: Size = 1
    other: Size = 1


# The rules that make what runs rest on.
Source = Literal[
    *("pack_images", "train_tokenizer", "import_tokenizer", "extract_latents", "train_extractor", "import_extractor"),
    *("make_reference", "import_reference", "train_encoder", "import_encoder", "import_published"),
]


class Pace(Record):
    """How fast work goes on a core or a GPU; for estimates of time only, no result depends on it.

    Rates are in 10^9 multiplications a second; `Run.multiplications` counts them.
    """

    device: Literal["core", "GPU"] = "core"
    training: Positive  # backward passes, which are worth two passes, included
    sampling: Positive
    job: Positive  # seconds until a job is at work
    method: Positive = 1.0  # times as long as its blocks takes a step with a method: projector, second loss
    decoding: NonNegative = 0.0  # seconds for a sample, from latent to image
    # Seconds at work of the jobs that make what runs rest on; those that are not named are not counted.
    sources: dict[Source, NonNegative] = Field(default_factory=dict)

    def times(self, factor: float) -> "Pace":
        """That of a machine which is so many times as fast."""
        changed = {"training": self.training * factor, "sampling": self.sampling * factor}
        changed |= {"decoding": self.decoding / factor}
        changed |= {"sources": {rule: seconds / factor for rule, seconds in self.sources.items()}}
        if self.device == "core":  # jobs on a GPU are started by the CPU beside it
            changed["job"] = self.job / factor
        return self.model_copy(update=changed)


Patterns = Annotated[tuple[str, ...], Field(max_length=100)]


class Scale(Record):
    """How big everything is, what of the paper there is at this size, and what readers of its tables should know."""

    name: Name
    description: str
    families: dict[Name, Family]
    seeds: Seeds = 1  # of every row, where nothing else is asked for
    claim_seeds: Seeds = 4  # that claims are judged over, where nothing else is asked for
    rows: Patterns = ("*",)  # names of the rows that there are: tables, figures and claims go without the others
    tables: Patterns = ("*",)
    figures: Patterns = ("*",)
    threads: Threads = Threads()
    pace: Pace | None = None  # without it there are no estimates of time
    claims: dict[Name, ClaimOverride] = Field(default_factory=dict)  # where this size needs another comparison
    notes: dict[str, str] = Field(default_factory=dict)  # table name -> Markdown under that table
