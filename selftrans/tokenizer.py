"""The VAE between pixels and latents: images -> moments -> raw latents -> latents, and back.

Moments are the posterior's mean and standard deviation, stacked along channels, as they are stored
(REPA stores the same pair). A raw latent is one draw from that posterior. The latents that models
see are raw latents normalised per channel by `LatentStats`.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftrans.artifacts import load_tensors, read_record, save_tensors, tensors_sha256, write_record
from selftrans.errors import UserError
from selftrans.fitting import draw_indices, fit, seeded
from selftrans.pixels import Rule, from_uint8, to_uint8
from selftrans.seeding import generator


def sample_posterior(moments: Tensor, noise: Tensor) -> Tensor:
    """Moments (N, 2C, h, w) and standard normal noise (N, C, h, w) -> raw latents (N, C, h, w)."""
    mean, std = moments.chunk(2, dim=1)
    return mean + std * noise


@dataclass(frozen=True)
class LatentStats:
    """Mean and standard deviation of raw latents, one number per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    key: str | None = None  # of the VAE
    tokenizer_sha256: str | None = None
    latents_sha256: str | None = None

    @classmethod
    def of(cls, moments: Iterable[Tensor]) -> "LatentStats":
        """Statistics over batches of moments (N, 2C, h, w), summed in float64.

        The variance is that of the draws: variance of the means plus mean of the posterior variances.
        With the former alone, a channel that the VAE left unused would be blown up to noise.
        """
        sums, count = 0, 0
        for batch in moments:
            mean, std = batch.double().chunk(2, dim=1)
            second = mean.square() + std.square()
            sums = sums + torch.stack([mean.sum((0, 2, 3)), second.sum((0, 2, 3))])  # (2, C)
            count += mean.numel() // mean.shape[1]
        mean, second = sums / count
        return cls(tuple(mean.tolist()), tuple((second - mean.square()).sqrt().tolist()))

    def normalise(self, raw: Tensor) -> Tensor:
        """Raw latents (N, C, h, w) -> latents of mean 0 and variance 1 in each channel."""
        return (raw - self._channels(self.mean, raw)) / self._channels(self.std, raw)

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents * self._channels(self.std, latents) + self._channels(self.mean, latents)

    @staticmethod
    def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        write_record(path, "latent statistics", asdict(self))

    @classmethod
    def load(cls, path: Path, expected: Mapping[str, Any] | None = None) -> "LatentStats":
        """Read what `save` wrote. Raises UserError if the file is missing, damaged, or not as ``expected``."""
        values = read_record(path, "latent statistics", expected)
        values.pop("kind")
        return cls(**values | {name: tuple(values[name]) for name in ("mean", "std")})


class Tokenizer:
    """A frozen VAE (diffusers' AutoencoderKL) on pixels and latents."""

    def __init__(self, vae: nn.Module, architecture: Mapping[str, Any]) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.architecture = dict(architecture)

    def to(self, device: torch.device | str) -> "Tokenizer":
        """Move the weights."""
        self.vae.to(device)
        return self

    @property
    def sha256(self) -> str:
        """Identifies the weights: what `save` returns and writes."""
        return tensors_sha256(self.vae.state_dict())

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 -> moments (N, 2C, h, w), on the device of the weights."""
        posterior = self.vae.encode(from_uint8(images.to(self.vae.device))).latent_dist
        return torch.cat([posterior.mean, posterior.std], dim=1)

    @torch.no_grad()
    def decode(self, latents: Tensor, stats: LatentStats, rule: Rule = "dit", batch_size: int = 64) -> Tensor:
        """Normalised latents (N, C, h, w) -> images (N, 3, H, W) uint8.

        Raises UserError if a latent is not finite; it would become a black image and a plausible score.
        """
        if not torch.isfinite(latents).all():
            raise UserError("latents to decode hold NaN or infinity: the model that drew them has diverged")
        batches = stats.denormalise(latents).split(batch_size)
        return torch.cat([to_uint8(self.vae.decode(raw).sample, rule) for raw in batches])

    def save(self, path: Path, about: Mapping[str, Any] | None = None) -> str:
        """Write weights and architecture; returns the SHA-256 of the weights."""
        return save_tensors(path, "VAE", self.vae.state_dict(), {**(about or {}), "architecture": self.architecture})

    @classmethod
    def load(cls, path: Path, expected: Mapping[str, Any] | None = None) -> "Tokenizer":
        """Read what `save` wrote. Raises UserError if the file is missing, damaged, or not as ``expected``."""
        weights, header = load_tensors(path, "VAE", expected)
        vae = build_vae(**header["architecture"])
        vae.load_state_dict(weights)
        return cls(vae, header["architecture"])


def build_vae(
    *, block_channels: tuple[int, ...], latent_channels: int, layers_per_block: int, norm_groups: int
) -> nn.Module:
    """A convolutional AutoencoderKL for RGB; each block but the last halves the resolution."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # seconds to import

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(block_channels),
        up_block_types=("UpDecoderBlock2D",) * len(block_channels),
        block_out_channels=tuple(block_channels),
        latent_channels=latent_channels,
        layers_per_block=layers_per_block,
        norm_num_groups=norm_groups,
        mid_block_add_attention=False,
    )


@dataclass(frozen=True)
class TokenizerReport:
    """How well a tokenizer reconstructs test images through its posterior means, pixels in [-1, 1]."""

    test_mse: float
    test_psnr: float  # dB
    steps: int
    seconds: float


def train_tokenizer(
    images: Tensor,
    test_images: Tensor,
    *,
    architecture: Mapping[str, Any],
    steps: int,
    batch_size: int,
    learning_rate: float,
    kl_weight: float,
    l1_weight: float,
    seed: int,
) -> tuple[Tokenizer, TokenizerReport]:
    """Train a VAE on (N, 3, H, W) uint8 images; ``architecture`` holds the arguments of `build_vae`.

    Loss: mean squared error + ``l1_weight`` × mean absolute error + ``kl_weight`` × KL divergence to the
    standard normal per latent element. Raises UserError with the step if the loss is not finite.
    """
    began = time.perf_counter()
    with seeded(seed, "tokenizer weights"):
        vae = build_vae(**architecture)

    def loss_at(step: int) -> Tensor:
        x = from_uint8(images[draw_indices(len(images), batch_size, seed, "tokenizer batch", step)])
        posterior = vae.encode(x).latent_dist
        draws = generator(seed, "tokenizer posterior", step)
        noise = torch.randn(posterior.mean.shape, generator=draws)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().sum() / posterior.mean.numel()
        return F.mse_loss(decoded, x) + l1_weight * F.l1_loss(decoded, x) + kl_weight * kl

    fit(vae, loss_at, steps=steps, learning_rate=learning_rate, name="tokenizer")
    tokenizer = Tokenizer(vae, architecture)
    mse = reconstruction_mse(tokenizer, test_images)
    psnr = 10 * math.log10(4 / mse)
    return tokenizer, TokenizerReport(mse, psnr, steps, round(time.perf_counter() - began, 1))


@torch.no_grad()
def reconstruction_mse(tokenizer: Tokenizer, images: Tensor, batch_size: int = 64) -> float:
    """Mean squared error per pixel, pixels in [-1, 1], of images decoded from their posterior means."""
    total = 0.0
    for batch in images.split(batch_size):
        means = tokenizer.encode(batch).chunk(2, dim=1)[0]
        total += F.mse_loss(tokenizer.vae.decode(means).sample, from_uint8(batch), reduction="sum").item()
    return total / images.numel()
