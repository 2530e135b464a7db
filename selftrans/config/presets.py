"""How samples are drawn."""

from typing import Annotated, Literal

from pydantic import Field

from selftrans.config.names import Name
from selftrans.config.records import Record
from selftrans.config.signatures import Count, Positive, Size, Window


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

    def batches_of(self, shard: int, shards: int) -> range:
        """The batches that job ``shard`` of ``shards``, counted from 1, draws."""
        return range(self.batches * (shard - 1) // shards, self.batches * shard // shards)

    @property
    def words(self) -> str:
        """Sampler and guidance, for people."""
        steps = "steps of its own choice" if self.steps is None else f"{self.steps} steps"
        if self.cfg_scale == 1:
            return f"{self.sampler}, {steps}, no guidance"
        begin, end = self.cfg_interval
        channels = "all channels" if self.cfg_channels is None else f"{self.cfg_channels} channels"
        return f"{self.sampler}, {steps}, guidance {self.cfg_scale:g} on {channels} from t = {begin:g} to {end:g}"

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
