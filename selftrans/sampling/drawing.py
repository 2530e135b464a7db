"""How an image is drawn: its label and its noise from its own random numbers, guidance, the sampler.

Nothing here knows of files or configuration: `selftrans export` takes this module along, with those that it imports.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from selftrans.data.draws import send
from selftrans.diffusion.guidance import guided_velocity
from selftrans.diffusion.samplers import dopri5_ode, euler_maruyama_sde, euler_ode, heun_ode, time_grid
from selftrans.seeding import derive_seed, generator


@dataclass(frozen=True)
class Sampling:
    """What decides how each image is drawn: the fields of a preset, by their names there."""

    sampler: Literal["euler_ode", "heun_ode", "dopri5_ode", "euler_maruyama_sde"]
    steps: int | None = None  # none for dopri5, which chooses its own
    labels: Literal["balanced", "uniform"] = "balanced"
    to_uint8: Literal["dit", "repa"] = "dit"
    time_shift: float = 1.0
    cfg_scale: float = 1.0
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    cfg_channels: int | None = None
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"


def image_labels(rule: Literal["balanced", "uniform"], indices: Tensor, classes: int, seed: int) -> Tensor:
    """(B,) int64: "balanced" is i mod classes, never sorted; "uniform" draws each from (seed, i)."""
    if rule == "balanced":
        return indices % classes
    draws = [torch.randint(classes, (), generator=generator(seed, "label", i)) for i in indices.tolist()]
    return torch.stack(draws)


def image_noise(seed: int, purpose: str, indices: Tensor, shape: tuple[int, ...], *step: int) -> Tensor:
    """Standard normal (B, *shape): row b from the random numbers of image ``indices[b]`` alone."""
    noise = torch.empty(len(indices), *shape)
    own = torch.Generator()
    for row, index in zip(noise, indices.tolist(), strict=True):
        row.normal_(generator=own.manual_seed(derive_seed(seed, purpose, *step, index)))
    return noise


@torch.no_grad()
def draw_latents(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor],
    labels: Tensor,
    null_label: int,
    indices: Tensor,
    shape: tuple[int, ...],
    sampling: Sampling,
    seed: int,
) -> Tensor:
    """Latents (B, *shape), normalised, of the images ``indices`` (B,) with ``labels`` (B,), on the labels' device.

    ``predict(x, t, labels)`` is a backbone's velocity. The sampler's state stays in float64 whatever the precision,
    which is that of the backbone alone.
    """
    device = labels.device
    noise = send(image_noise(seed, "sample", indices, shape), device)

    def noise_at(step: int) -> Tensor:
        return send(image_noise(seed, "sampler", indices, shape, step), device)

    velocity = guided_velocity(
        predict,
        labels,
        null_label,
        scale=sampling.cfg_scale,
        interval=sampling.cfg_interval,
        channels=sampling.cfg_channels,
    )
    with precision_of(sampling, device):
        match sampling.sampler:
            case "euler_ode":
                return euler_ode(velocity, noise, time_grid(sampling.steps, sampling.time_shift))
            case "heun_ode":
                return heun_ode(velocity, noise, time_grid(sampling.steps, sampling.time_shift))
            case "dopri5_ode":
                return dopri5_ode(velocity, noise)
            case "euler_maruyama_sde":
                return euler_maruyama_sde(velocity, noise, sampling.steps, noise_at)


@contextmanager
def precision_of(sampling: Sampling, device: torch.device) -> Iterator[None]:
    """Matrix products in the preset's precision."""
    bfloat16 = sampling.precision == "bfloat16"
    with matmul_precision(sampling), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        yield


@contextmanager
def matmul_precision(sampling: Sampling) -> Iterator[None]:
    """That of float32 matrix products, which is the process's; "tf32" is float32 where the hardware has no TF32."""
    found = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if sampling.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(found)
