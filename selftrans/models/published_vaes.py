"""VAEs that other people published -> a tokenizer as ours are, with the statistics that normalise its latents.

A file holds an AutoencoderKL in the names of diffusers, today's or those of 2022, or in those of latent diffusion
(github.com/CompVis/latent-diffusion), which VA-VAE (hustvl/LightningDiT) and REPA-E (End2End-Diffusion/REPA-E) keep.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selftrans.artifacts import refuse_damage
from selftrans.config.families import PUBLISHED_VAES, PublishedTokenizer, PublishedVae
from selftrans.data.latent_stats import LatentStats
from selftrans.errors import UserError
from selftrans.files import file_sha256, require_regular
from selftrans.models.foreign import REMEDY, as_float32, read_foreign, tensors_by_name
from selftrans.models.layout import laid_out
from selftrans.models.strict import require_fit
from selftrans.models.tokenizer import ENCODER, Tokenizer, build_vae, encoder_sha256

# The arguments of `build_vae`.
LAYOUTS: dict[str, dict[str, Any]] = {
    "f8d4": {
        "block_channels": (128, 256, 512, 512),
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_groups": 32,
        "middle_attention": True,
    },
    "f16d32": {
        "block_channels": (128, 128, 256, 256, 512),
        "latent_channels": 32,
        "layers_per_block": 2,
        "norm_groups": 32,
        "middle_attention": True,
        "block_attention": True,
    },
}

# Parts of a file that only its training used.
REASONS = {
    "loss": "discriminator and perceptual network of its training",
    "foundation_model": "what VA-VAE was aligned with in training",
    "linear_proj": "the projection for it, used in training only",
}

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")  # in a folder of diffusers

# Fields of diffusers' config.json that decide no weights; scale and shift matter where the VAE's is known.
NO_MATTER = {"sample_size", "force_upcast"}
NORMALISATION = {"scaling_factor", "shift_factor", "latents_mean", "latents_std"}


class Source(NamedTuple):
    """A published VAE as it was read: tensors in float32 under diffusers' names, and what they came with."""

    name: str
    file: Path
    sha256: str  # of the file
    config: dict[str, Any]  # diffusers', if it has one
    tensors: dict[str, Tensor]
    dropped: dict[str, str]  # what of the file is left out: {what: why}

    @property
    def known(self) -> PublishedVae:
        """What is known of it."""
        return PUBLISHED_VAES[self.name]


class Imported(NamedTuple):
    """A tokenizer, what its file says of it besides its key, and what of the sources is not in it: {what: why}."""

    tokenizer: Tokenizer
    about: dict[str, Any]
    dropped: dict[str, str]


def import_vae(recipe: PublishedTokenizer) -> Imported:
    """Read a published VAE, or the encoder of one and the decoder of another that share their latent space.

    Raises UserError if a file is missing or damaged, holds another VAE, a tensor too many or too few, or NaN; if the
    statistics of the latents are not beside it; or if the encoders of the two differ.
    """
    encoder = read_vae(recipe.published, Path(recipe.weights))
    decoder = encoder
    if recipe.decoder is not None and recipe.decoder_weights is not None:
        decoder = read_vae(recipe.decoder, Path(recipe.decoder_weights))
    if decoder is not encoder and encoder_sha256(decoder.tensors) != encoder_sha256(encoder.tensors):
        raise UserError(
            f"{decoder.file}: does not decode what {encoder.file} encodes: their encoders differ, so that they do not "
            "share a latent space; name two VAEs with the same encoder, or one alone"
        )
    tensors = {name: (encoder if name.startswith(ENCODER) else decoder).tensors[name] for name in encoder.tensors}
    architecture = LAYOUTS[encoder.known.layout]
    with laid_out():
        vae = build_vae(**architecture)
    vae.load_state_dict(tensors, assign=True)
    stats = statistics_of(encoder)
    about = {
        "latents": {
            "vae": encoder.known.latents,
            "channels": encoder.known.channels,
            "pixels": encoder.known.pixels,
            "mean": stats.mean,
            "std": stats.std,
        },
        "source": {
            what: {"published": source.name, "file": source.file.name, "sha256": source.sha256}
            for what, source in {"encoder": encoder, "decoder": decoder}.items()
        },
        "made_of": {"encoder": encoder.sha256, "decoder": decoder.sha256},
    }
    return Imported(Tokenizer(vae, architecture, about), about, encoder.dropped | decoder.dropped)


# ------------------------------------------------------------------------------------------------- reading


def read_vae(name: str, path: Path) -> Source:
    """The published VAE ``name`` from a file, or from a folder of diffusers. Raises UserError as `import_vae` does."""
    known = PUBLISHED_VAES[name]
    if not path.exists():
        revision = f" at revision {known.revision}" if known.revision else ""
        raise UserError(
            f"{path}: no such file or folder; {name} is {known.repository}{revision} on the Hugging Face Hub: copy it "
            "there (docs/vaes.md)"
        )
    file, config = _in_folder(path) if path.is_dir() else (path, {})
    with laid_out():
        vae = build_vae(**LAYOUTS[known.layout])
    if path.is_dir():
        _check_config(path / "config.json", config, name, vae.config)
    content = read_foreign(file)
    found = tensors_by_name(file, content.get("state_dict", content))
    parts = {tensor.split(".")[0] for tensor in found} & REASONS.keys()
    kept = {tensor: value for tensor, value in found.items() if tensor.split(".")[0] not in parts}
    tensors = as_float32(_as_in_diffusers(file, kept, len(LAYOUTS[known.layout]["block_channels"])))
    require_fit(vae, tensors, file, wrong=f"not the weights of {name}", remedy="name another file")
    for tensor, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{file}: {tensor} holds NaN or infinity; {REMEDY}")
    dropped = {f"{part}.*": REASONS[part] for part in sorted(parts)}
    return Source(name, file, file_sha256(file), config, tensors, dropped)


def _in_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    """(weights, config) of a folder of diffusers."""
    config = folder / "config.json"
    if not config.exists():
        raise UserError(
            f"{folder}: a folder without config.json, which diffusers has beside the weights; name the folder that "
            "has it, or the file of weights itself"
        )
    require_regular(config)
    with refuse_damage(config, REMEDY):
        fields = json.loads(config.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("no mapping")
    file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if file is None:
        raise UserError(f"{folder}: holds neither {' nor '.join(WEIGHTS)}; {REMEDY}")
    return file, fields


def _check_config(path: Path, found: dict[str, Any], name: str, wanted: Mapping[str, Any]) -> None:
    """Raise UserError unless a VAE of diffusers has the layout of ``name``, and its scale if it has one for all."""
    if found.get("_class_name") != "AutoencoderKL":
        raise UserError(f"{path}: _class_name: found {found.get('_class_name')!r}; allowed: 'AutoencoderKL'")
    scale = PUBLISHED_VAES[name].scale
    ignored = NO_MATTER if scale else NO_MATTER | NORMALISATION
    wanted = json.loads(json.dumps({**wanted, "scaling_factor": scale}))
    for key in sorted(found.keys() & wanted.keys() - ignored):
        if not key.startswith("_") and found[key] != wanted[key]:
            raise UserError(f"{path}: {key}: found {found[key]!r}; allowed: {wanted[key]!r}, as {name} has")


# What names are in diffusers, where latent diffusion, or diffusers itself in 2022, had others.
RENAMED = {
    r"\.down\.(\d+)\.": r".down_blocks.\1.",
    r"(_blocks\.\d+)\.block\.": r"\1.resnets.",
    r"(_blocks\.\d+)\.attn\.": r"\1.attentions.",
    r"\.(down|up)sample\.": r".\1samplers.0.",
    r"\.nin_shortcut\.": ".conv_shortcut.",
    r"\.mid\.block_1\.": ".mid_block.resnets.0.",
    r"\.mid\.block_2\.": ".mid_block.resnets.1.",
    r"\.mid\.attn_1\.": ".mid_block.attentions.0.",
    r"coder\.norm_out\.": "coder.conv_norm_out.",
    r"(\.attentions\.\d+)\.norm\.": r"\1.group_norm.",
    r"(\.attentions\.\d+)\.(q|query)\.": r"\1.to_q.",
    r"(\.attentions\.\d+)\.(k|key)\.": r"\1.to_k.",
    r"(\.attentions\.\d+)\.(v|value)\.": r"\1.to_v.",
    r"(\.attentions\.\d+)\.(proj_out|proj_attn)\.": r"\1.to_out.0.",
}


def _as_in_diffusers(path: Path, tensors: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """``tensors`` under diffusers' names; ``levels`` is the number of resolutions.

    Latent diffusion counts the decoder's blocks from the image, diffusers from the latent, and where the one has
    1×1 convolutions in its attention, the other has linear maps.
    """
    renamed = {}
    for name, tensor in tensors.items():
        new = re.sub(r"\.up\.(\d+)\.", lambda found: f".up_blocks.{levels - 1 - int(found[1])}.", name)
        for old, today in RENAMED.items():
            new = re.sub(old, today, new)
        pointwise = ".attentions." in new and tensor.shape[2:] == (1, 1)
        renamed[new] = tensor[:, :, 0, 0] if pointwise else tensor
    if len(renamed) < len(tensors):
        raise UserError(f"{path}: holds a VAE twice, under old names and new ones; keep one of them")
    return renamed


# ---------------------------------------------------------------------------------------------- statistics


def statistics_of(source: Source) -> LatentStats:
    """The published mean and deviation of raw latents: of the scale if all channels share one, else per channel.

    Those are in diffusers' config.json, or in a file beside the weights: VA-VAE's latents_stats.pt (mean, std), or
    REPA-E's <weights>-latents-stats.pt (latents_bias, latents_scale; latents = (raw - bias) × scale).
    """
    known = source.known
    if known.scale is not None:
        return LatentStats((0.0,) * known.channels, (1 / known.scale,) * known.channels)
    per_channel = [source.config.get(key) for key in ("latents_mean", "latents_std")]
    if None not in per_channel:
        path = source.file.with_name("config.json")
        with refuse_damage(path, REMEDY):
            mean, std = (torch.as_tensor(values, dtype=torch.float64) for values in per_channel)
    else:
        path, mean, std = _beside(source)
    stats = LatentStats(tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()))
    if len(stats.mean) != known.channels or stats.flaw:
        what = stats.flaw or f"there are {len(stats.mean)} channels"
        raise UserError(f"{path}: no statistics of the {known.channels} channels of {source.name}: {what}; {REMEDY}")
    return stats


def _beside(source: Source) -> tuple[Path, Tensor, Tensor]:
    """(file, mean, deviation) from the file of statistics beside the weights."""
    names = (f"{source.file.stem}-latents-stats.pt", "latents_stats.pt")
    path = next((path for name in names if (path := source.file.with_name(name)).exists()), None)
    if path is None:
        raise UserError(
            f"{source.file}: the statistics of its latents are not beside it, which {source.name} is published with; "
            f"copy {' or '.join(names)} into its folder"
        )
    found = tensors_by_name(path, read_foreign(path))
    match sorted(found):
        case ["mean", "std"]:
            return path, found["mean"].double(), found["std"].double()
        case ["latents_bias", "latents_scale"]:
            return path, found["latents_bias"].double(), 1 / found["latents_scale"].double()
    raise UserError(f"{path}: holds {', '.join(found)}; allowed: mean and std, or latents_bias and latents_scale")
