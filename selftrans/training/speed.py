"""How fast runs train on the machine at hand: they take turns, on random latents.

What latents, images, teacher and encoder hold costs nothing, so random ones do; their sizes are the run's.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from selftrans.config.families import PublishedEncoder
from selftrans.data.latent_stats import LatentStats
from selftrans.data.latents import LatentDataset
from selftrans.data.packed import Packed, write_packed
from selftrans.models.backbones import build_backbone
from selftrans.models.encoders import Encoder, build_published, build_vit
from selftrans.models.teacher import FrozenTeacher
from selftrans.plan.runs import Run
from selftrans.training.distributed import Ranks
from selftrans.training.trainer import Trainer

RANDOM = {"sha256": "random"}  # what a teacher or encoder says of itself

Step = Callable[[], object]

Name = TypeVar("Name", bound=Hashable)


def take_turns(
    contenders: Mapping[Name, Callable[[], Step]],
    rounds: int,
    steps: int,
    clock: Callable[[], float],
    tell: Callable[[int], object] = lambda turn: None,
    warm_up: int = 1,
) -> dict[Name, list[float]]:
    """Seconds per step of each contender: one figure for each of ``rounds`` turns, and none for one more that warms up.

    A contender makes what takes its steps anew in each turn, so that one at a time is in memory; its first ``warm_up``
    steps are not timed. Whatever else the machine does meets all of them. ``tell`` is called after each turn.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, make in contenders.items():
            step = make()
            for _ in range(warm_up):
                step()
            began = clock()
            for _ in range(steps):
                step()
            if turn > 0:
                seconds[name].append((clock() - began) / steps)
            del step
            gc.collect()  # what holds on to itself too, such as a model with hooks
        tell(turn)
    return seconds


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds: of work done, which other processes do not spend, on one CPU thread; else of the clock on the wall."""

    def on_gpu() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    if device.type == "cuda":
        return on_gpu
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """The median, over turns, of how many times as fast as the others the first ones are."""
    return statistics.median(other / own for own, other in zip(seconds, others, strict=True))


# --------------------------------------------------------------------------------------------- what is measured


class RandomTraining:
    """A run on random latents, images, teacher and encoder, made once; its trainers are made anew."""

    def __init__(
        self, run: Run, device: torch.device, stopped: bool = False, encoder: Callable[[Run], Encoder] | None = None
    ) -> None:
        """``stopped``: at the run's stop, where there is no method. ``encoder`` makes another than the family's."""
        self.run, self.device, self.stopped = run, device, stopped
        with tempfile.TemporaryDirectory() as folder:
            self.dataset = random_dataset(run, Path(folder))  # mapped into memory, so the files may go
        self.context: dict[str, Any] = {}
        if run.needs_images and not stopped:
            self.context["encoder"] = (encoder or random_encoder)(run).to(device)
        elif run.teacher is not None and not stopped:
            self.context["teacher"] = random_teacher(run, device)

    def trainer(self) -> Trainer:
        """The run at its first step, or at its stop. Raises UserError as `Trainer` does."""
        trainer = Trainer(self.run, self.dataset, self.context, Ranks(self.device))
        if self.stopped:
            trainer.load(self.run.recipe["stop"], trainer.state(), trainer.made_of)
        return trainer

    def __call__(self) -> Step:
        """As a contender of `take_turns`."""
        return self.trainer().train_step


def random_dataset(run: Run, folder: Path) -> LatentDataset:
    """Four batches of random moments, and of images if the method needs them."""
    sizes, data, count = run.backbone, run.family.data, 4 * run.family.batch_size
    labels = torch.arange(count) % data.classes
    images = torch.randint(256, (count, 3, data.size, data.size)).to(torch.uint8)
    write_packed(folder / "images", "images", [(images, labels)], count=count, source={}, about={})
    moments = torch.rand(count, 2 * sizes["channels"], sizes["input_size"], sizes["input_size"])
    packed = Packed(folder / "images", "images")
    source = {"images": packed.sha256}
    write_packed(folder / "latents", "moments", [(moments, labels)], count=count, source=source, about={})
    stats = LatentStats((0.0,) * sizes["channels"], (1.0,) * sizes["channels"])
    return LatentDataset(Packed(folder / "latents", "moments"), packed if run.needs_images else None, stats)


def random_teacher(run: Run, device: torch.device) -> FrozenTeacher:
    """As deep as the run's guiding layer."""
    teacher = build_backbone(**run.backbone, blocks=run.teacher.layer)
    teacher.initialise(torch.Generator().manual_seed(0))
    return FrozenTeacher(teacher.to(device), run.teacher.layer, RANDOM)


def random_encoder(run: Run, **sizes: int) -> Encoder:
    """The family's; one that is trained here, with other ``sizes`` if there are any."""
    recipe, data = run.family.encoder, run.family.data
    if isinstance(recipe, PublishedEncoder):
        architecture: dict[str, Any] = {"published": recipe.published, "image_size": data.size}
        vit = build_published(**architecture).to_empty(device="cpu")
        for parameter in vit.parameters():
            nn.init.normal_(parameter, std=0.02)
        return Encoder(vit, architecture, RANDOM)
    architecture = {"classes": data.classes, "size": data.size, **sizes}
    return Encoder(build_vit(**architecture), architecture, RANDOM)
