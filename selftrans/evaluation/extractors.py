"""Feature extractors: what the metrics see of an image.

A small scale trains its own classifier. Distances in its features are comparable with nothing outside that
scale, so its name and the hash of its weights stand beside every number.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selftrans.artifacts import AGAIN, load_tensors, refuse_damage, save_tensors, tensors_sha256
from selftrans.config.names import INCEPTION
from selftrans.data.pixels import from_uint8
from selftrans.errors import UserError
from selftrans.evaluation.features import Features
from selftrans.formats import SAFETENSORS, what_is
from selftrans.models.layout import laid_out
from selftrans.models.strict import load_strictly
from selftrans.parallel import read_ahead, spread
from selftrans.progress import progress_bar

KIND = "extractor"
SPATIAL_CHANNELS = 7  # of the spatial layer's channels, as many as sFID reads of Inception's


class Images(Protocol):
    """A set of images: a tensor (N, 3, H, W) uint8, or one on disk (`selftrans.evaluation.images`)."""

    def __len__(self) -> int:
        """N."""

    def split(self, batch_size: int, /) -> "Iterator[Tensor] | tuple[Tensor, ...]":
        """All of them in order, as tensors (n, 3, H, W) uint8."""


class SmallClassifier(nn.Module):
    """Three convolutions that halve the resolution, a layer of 64 features, a linear classifier.

    Takes pixels in [-1, 1], (N, 3, size, size), where 8 divides size.
    """

    def __init__(self, *, classes: int, size: int) -> None:
        super().__init__()
        self.conv1 = _convolution(3, 16)
        self.conv2 = _convolution(16, 32)
        self.conv3 = _convolution(32, 64)
        self.hidden = nn.Linear(64 * (size // 8) ** 2, 64)
        self.head = nn.Linear(64, classes)
        self.architecture = {"classes": classes, "size": size}

    def features(self, images: Tensor) -> Features:
        """The layers of images (N, 3, size, size) uint8. Raises ValueError for any others."""
        size = self.architecture["size"]
        if images.shape[2:] != (size, size):
            raise ValueError(
                f"images are {images.shape[3]}×{images.shape[2]} pixels, but the extractor takes {size}×{size}; "
                "resize them, as nothing here does"
            )
        return self.layers(from_uint8(images).contiguous())

    def layers(self, x: Tensor) -> Features:
        """Pool (N, 64); spatial (N, 7 size²/16), position by position as sFID has it; logits (N, classes)."""
        middle = self.conv2(self.conv1(x))  # (N, 32, size/4, size/4)
        pool = self.hidden(self.conv3(middle).flatten(1)).relu()  # (N, 64)
        spatial = middle[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return Features(pool, spatial, self.head(pool))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        return self.layers(x).logits


def _convolution(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class Extractor:
    """A frozen network under the name that stands beside its numbers, with the SHA-256 of its weights.

    The network's ``features(images)`` turns (n, 3, H, W) uint8 into `Features`, as `SmallClassifier` does.
    """

    def __init__(self, network: nn.Module, name: str, sha256: str | None = None, batch_size: int = 256) -> None:
        self.network = network.eval().requires_grad_(False)
        self.replicas = [self.network]
        self.name = name
        self.sha256 = sha256 or tensors_sha256(network.state_dict())
        self.batch_size = batch_size

    def on(self, devices: Sequence[torch.device | str]) -> "Extractor":
        """Have the network on each of ``devices``, among which batches are shared."""
        copies = [copy.deepcopy(self.network) for _ in devices[1:]]
        self.replicas = [network.to(device) for network, device in zip([self.network, *copies], devices, strict=True)]
        return self

    def extract(self, images: Images, batch_size: int | None = None, of: str = "") -> Iterator[Features]:
        """Features, batch by batch and in order, on the CPU, in float32 proper; images are read ahead.

        ``of`` stands before the progress bar, after the extractor's name. Raises ValueError for anything but
        (n, 3, H, W) uint8, of a size that the network takes.
        """
        batches = read_ahead(images.split(batch_size or self.batch_size))
        workers = [partial(_features, network) for network in self.replicas]
        # One on a CPU works where it is asked: other threads have less of the memory that malloc keeps.
        alone = len(workers) == 1 and next(self.network.parameters()).device.type == "cpu"
        with progress_bar(len(images), f"{self.name} features{of}", "image") as bar, _without_tf32():
            for features in map(workers[0], batches) if alone else spread(workers, batches):
                yield features
                bar.update(len(features.pool))

    def save(self, path: Path, key: str, made_of: Mapping[str, Any]) -> str:
        """Write weights, architecture and name of a `SmallClassifier`; returns the SHA-256 of the weights.

        ``key`` is its key in the workflow, ``made_of`` (JSON) holds the hashes of what it was trained on.
        """
        about = {"key": key, "name": self.name, "architecture": self.network.architecture, "made_of": dict(made_of)}
        return save_tensors(path, KIND, self.network.state_dict(), about)

    @classmethod
    def load(cls, path: Path, expected: Mapping[str, Any] | None = None, remedy: str = AGAIN) -> "Extractor":
        """Read what `save` wrote.

        Raises UserError, which ends in ``remedy``, if the file is missing, damaged, altered, of another kind, not as
        ``expected``, or under the name of Inception, whose distances are called FID.
        """
        require_extractor_file(path, remedy)
        weights, header = load_tensors(path, KIND, expected, remedy)
        if header["name"] == INCEPTION:
            raise UserError(f"{path}: a classifier under the name of {INCEPTION}; {remedy}")
        with refuse_damage(path, remedy):
            with laid_out():  # which takes no memory, whatever sizes the file names
                network = SmallClassifier(**header["architecture"])
            load_strictly(network, weights, path, remedy=remedy, assign=True)
        return cls(network, header["name"], header["sha256"])


@torch.no_grad()
def _features(network: nn.Module, images: Tensor) -> Features:
    return network.features(images.to(next(network.parameters()).device)).to("cpu")


def require_extractor_file(path: Path, remedy: str) -> None:
    """Raise UserError unless the file's format is that of an extractor's."""
    if (what := what_is(path)) != SAFETENSORS:
        raise UserError(f"{path}: {what}, where an {KIND} is wanted; {remedy}")


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Let a GPU keep all 24 bits of float32, which its convolutions round to 11 unless they are told."""
    found = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(found)
