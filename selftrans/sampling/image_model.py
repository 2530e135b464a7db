"""From weights to images: labels, one stream of noise per image, guidance, the sampler, the VAE's decoder.

Image i is a function of (seed, i), its label and the preset: the same alone, in any batch, and for every row of a
table, so that differences between rows are paired (up to the order of floating-point sums in a batch; with dopri5,
whose step sizes a batch shares, up to its tolerance).
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftrans.config.presets import Preset
from selftrans.data.latent_stats import LatentStats
from selftrans.errors import UserError
from selftrans.models.backbones.backbone import Backbone
from selftrans.models.checkpoint import load_backbone
from selftrans.models.latent_space import find_decoder, published_stats, require_latents
from selftrans.models.tokenizer import Tokenizer
from selftrans.parallel import spread_in_halves
from selftrans.plan.paths import Pattern
from selftrans.progress import progress_bar
from selftrans.sampling.drawing import Sampling, draw_latents, image_labels, matmul_precision
from selftrans.sampling.samples import BatchFolder


def sample_labels(preset: Preset, classes: int, seed: int) -> Tensor:
    """(samples,) int64, by the preset's rule."""
    return image_labels(preset.labels, torch.arange(preset.samples), classes, seed)


def sampling_of(preset: Preset) -> Sampling:
    """What decides how each image of a preset is drawn."""
    return Sampling(**preset.model_dump(include={field.name for field in fields(Sampling)}))


def sample_latents(backbone: Backbone, labels: Tensor, indices: Tensor, preset: Preset, seed: int) -> Tensor:
    """Latents (B, C, h, w), normalised, of the images ``indices`` (B,) with ``labels`` (B,), where the backbone is."""

    def predict(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return backbone(x, t, labels).velocity

    return draw_latents(
        predict,
        labels.to(backbone.pos_embed.device),
        backbone.null_label,
        indices,
        (backbone.channels, backbone.input_size, backbone.input_size),
        sampling_of(preset),
        seed,
    )


@dataclass(frozen=True, eq=False)
class ImageModel:
    """All that turns noise into images: a backbone, the VAE of its latents, and how these are normalised."""

    backbone: Backbone
    tokenizer: Tokenizer
    stats: LatentStats
    header: dict[str, Any]  # of the weights

    @classmethod
    def load(
        cls,
        weights: Path,
        device: torch.device,
        tokenizer: Path | None = None,
        stats: Path | None = None,
        expected: Mapping[str, Any] | None = None,
    ) -> "ImageModel":
        """Read weights, VAE and statistics.

        The latter two, if not given, are looked for in the weights' results folder. Of imported weights, the VAE is
        looked for in ``results/`` too, and brings its statistics. Raises UserError if a file is missing or damaged,
        made for other latents, or if the weights are not as ``expected``.
        """
        backbone, header = load_backbone(weights, expected)
        if stats is None and "recipe" in header and "latents" not in header:
            stats = _beside(weights, Pattern.latent_stats, latents=header["recipe"]["latents"])
        known = None if stats is None else LatentStats.load(stats)
        tokenizer = tokenizer or _tokenizer_of(weights, header, known)
        decoder = Tokenizer.load(tokenizer)
        if known is None:
            stats, known = tokenizer, _own_stats(tokenizer, decoder)
        require_latents(weights, header, (tokenizer, decoder), (stats, known))
        return cls(backbone.eval().to(device), decoder.to(device), known, header)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.backbone.pos_embed.device

    def decode(self, latents: Tensor, preset: Preset) -> Tensor:
        """Normalised latents (N, C, h, w) -> images (N, 3, H, W) uint8, on the CPU."""
        return self.tokenizer.decode(latents, self.stats, preset.to_uint8).cpu()

    def replicas(self, devices: Sequence[torch.device | str]) -> "list[ImageModel]":
        """A copy on each of ``devices``."""
        return [
            replace(self, backbone=deepcopy(self.backbone).to(device), tokenizer=deepcopy(self.tokenizer).to(device))
            for device in devices
        ]


OPTIONS = "name VAE and statistics by --tokenizer and --stats"


def _own_stats(path: Path, tokenizer: Tokenizer) -> LatentStats:
    """The statistics that a VAE brings. Raises UserError if it was published with none."""
    if "latents" not in tokenizer.header:
        raise UserError(f"{path}: no published VAE, which would bring statistics of its latents; {OPTIONS}")
    return published_stats(tokenizer)


def _tokenizer_of(weights: Path, header: dict[str, Any], stats: LatentStats | None) -> Path:
    """The VAE of the latents that weights were trained on."""
    if "latents" not in header:
        if "recipe" not in header:
            raise UserError(f"{weights}: imported weights do not say what VAE their latents are of; {OPTIONS}")
        key = (stats and stats.tokenizer) or header["recipe"]["latents"]
        return _beside(weights, Pattern.tokenizer, tokenizer=key)
    name = Pattern.tokenizer.format(tokenizer="*")
    above = [path for folder in weights.resolve().parents for path in folder.glob(name)]
    return find_decoder(weights, header["latents"], [*above, *Path("results").glob(f"*/{name}")])


def _beside(weights: Path, pattern: str, **key: str) -> Path:
    """The file that ``pattern`` and ``key`` name in the results folder that the weights lie in."""
    path = pattern.format(**key)
    for folder in weights.resolve().parents:
        if (folder / path).exists():
            return folder / path
    raise UserError(f"{weights}: there is no {path}, which it was trained with, in a folder above it; {OPTIONS}")


def sample_images(model: ImageModel, labels: Tensor, indices: Tensor, preset: Preset, seed: int) -> Tensor:
    """The images ``indices`` (B,) with ``labels`` (B,): (B, 3, H, W) uint8, on the CPU."""
    return model.decode(sample_latents(model.backbone, labels, indices, preset, seed), preset)


# -------------------------------------------------------------------------------------- sharing the work


def batch_indices(preset: Preset, batch: int) -> Tensor:
    """The numbers of the images in a batch. Batches are cut the same way whoever makes them."""
    first = batch * preset.batch_size
    return torch.arange(first, min(first + preset.batch_size, preset.samples))


def batches_of(preset: Preset, shard: int = 1, shards: int = 1) -> range:
    """The batches of a preset, or those of its shard ``shard`` of ``shards``, counted from 1."""
    return preset.batches_of(shard, shards)


def sample_batches(
    model: ImageModel,
    labels: Tensor,
    preset: Preset,
    seed: int,
    batches: range,
    folder: BatchFolder,
    label: str,
    replicas: Sequence[ImageModel] = (),
) -> None:
    """Draw those of ``batches`` that ``folder`` does not hold yet; ``labels`` are of all samples of the preset.

    ``label`` stands before the progress bar. With ``replicas`` on other devices, batches are shared among all. While a
    GPU draws latents, those before them are decoded, fetched and written.
    """
    sizes = {batch: len(batch_indices(preset, batch)) for batch in batches}
    missing = [batch for batch in batches if batch not in folder]
    total, to_do = sum(sizes.values()), sum(sizes[batch] for batch in missing)

    def draw(model: ImageModel, batch: int) -> tuple[int, Tensor]:
        indices = batch_indices(preset, batch)
        return batch, sample_latents(model.backbone, labels[indices], indices, preset, seed)

    def finish(model: ImageModel, drawn: tuple[int, Tensor]) -> int:
        batch, latents = drawn
        folder.save(batch, model.decode(latents, preset))
        return sizes[batch]

    if replicas or model.device.type == "cuda":
        workers = [(partial(draw, one), partial(finish, one)) for one in (model, *replicas)]
        finished = spread_in_halves(workers, missing)
    else:  # where the halves would be after the same cores
        finished = (finish(model, draw(model, batch)) for batch in missing)
    # The precision is the process's: set for all, so that none that ends sets it back while others are at work.
    with (
        progress_bar(total, label, "image", initial=total - to_do) as bar,
        matmul_precision(sampling_of(preset)),
        closing(finished),
    ):
        for images in finished:
            bar.update(images)
