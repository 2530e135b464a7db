"""Published checkpoints of SiT, REPA, SRA, Self-Transcendence and LightningDiT -> weights as ours are.

Parameters have the same names. SiT and LightningDiT put data at t = 1, though, and their velocity points from noise
to data. Both are turned once, here, by an exact change of three tensors: see `turn_time`.

What the files hold is told by github.com/willisma/SiT, sihyun-yu/REPA, vvvvvjdy/SRA, csslc/Self-Transcendence (built
on REPA's; its models have query-key norm) and hustvl/LightningDiT.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selftrans.config.families import PUBLISHED_VAES
from selftrans.errors import UserError
from selftrans.files import file_sha256
from selftrans.models.backbones import build_backbone
from selftrans.models.backbones.parts import timestep_frequencies
from selftrans.models.backbones.sit import SIZES
from selftrans.models.checkpoint import weights_header
from selftrans.models.foreign import as_float32, read_foreign, tensors_by_name
from selftrans.models.layout import laid_out
from selftrans.models.strict import Form, difference, forms
from selftrans.plan.runs import Run
from selftrans.provenance import provenance

# What the models were trained on: latents = (raw - shift) × scale, or, channel by channel, (raw - mean) / deviation.
_SD, _VA = PUBLISHED_VAES["sd-vae-ft-ema"], PUBLISHED_VAES["va-vae"]
SD_VAE = {"vae": _SD.latents, "channels": _SD.channels, "pixels": _SD.pixels, "scale": _SD.scale, "shift": 0.0}
VA_VAE = {
    "vae": _VA.latents,
    "channels": _VA.channels,
    "pixels": _VA.pixels,
    "statistics": "latents_stats.pt, published with VA-VAE",
}


class Origin(NamedTuple):
    """The conventions of the code that made a checkpoint."""

    backbone: str
    data_at_one: bool  # t = 1 is data
    latents: dict[str, Any]


ORIGINS = {
    "sit": Origin("sit", True, SD_VAE),
    "repa": Origin("sit", False, SD_VAE),
    "sra": Origin("sit", False, SD_VAE),
    "self-transcendence": Origin("sit", False, SD_VAE),
    "lightningdit": Origin("lightningdit", True, VA_VAE),
}
RESOLUTIONS = (256, 512)
MODELS = {
    f"{backbone}-{size.lower()}{patch_size}": {
        "backbone": backbone,
        "depth": depth,
        "width": width,
        "heads": heads,
        "patch_size": patch_size,
    }
    for backbone, patch_sizes in {"sit": (2, 4, 8), "lightningdit": (1, 2)}.items()
    for size, (depth, width, heads) in SIZES.items()
    for patch_size in patch_sizes
}

ENTRIES = {"ema": "ema", "online": "model"}  # our name of the weights -> their place in a training checkpoint

LAST_LAYER = ("final_layer.linear.weight", "final_layer.linear.bias")

REASONS = {
    "projectors": "heads of REPA and Self-Transcendence, used in training only",
    "ap_head": "the head of SRA, used in training only",
    "feat_rope": "rotary positions, which are fixed and made anew",
}


class Imported(NamedTuple):
    """Weights as `checkpoint.load_backbone` reads them, and what of the file is not in them: {what: why}."""

    tensors: dict[str, Tensor]
    header: dict[str, Any]
    dropped: dict[str, str]


def import_weights(
    path: Path, *, model: str, resolution: int, origin: str, weights: str, drop: Sequence[str] = ()
) -> Imported:
    """Read a checkpoint that ``origin``'s code made of ``model`` at ``resolution`` px.

    ``weights`` is "ema" or "online"; a file that is a bare state dict is taken to be what it says. Classes and qk-norm
    are read off the file. What it holds besides the backbone is refused, but for the heads in `REASONS` and the parts
    that ``drop`` names. Raises UserError if the file is no such checkpoint.
    """
    if model not in MODELS:
        raise UserError(f"--as: found {model!r}; allowed: {', '.join(MODELS)}")
    if ORIGINS[origin].backbone != MODELS[model]["backbone"]:
        allowed = ", ".join(name for name in MODELS if MODELS[name]["backbone"] == ORIGINS[origin].backbone)
        raise UserError(f"--as: found {model!r}; allowed with --from {origin}: {allowed}")

    def sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
        return _sizes(state, model, resolution // ORIGINS[origin].latents["pixels"])

    found = _import(path, sizes, f"{model} at {resolution} px", origin, weights, drop)
    found.header["source"] |= {"model": model, "resolution": resolution}
    return found


def import_published(path: Path, run: Run) -> Imported:
    """The weights of a row whose weights are published, read off its file ``path``.

    Raises UserError if the file is no such checkpoint, or another one than the row's.
    """
    published = run.row.published
    sha256 = file_sha256(path)
    if published.sha256 not in (None, sha256):
        raise UserError(
            f"{path}: SHA-256 {sha256}, but {run.name}.published.sha256 is {published.sha256}; get the file again, or "
            "correct the row"
        )
    kind = ORIGINS[published.origin].backbone
    if kind != run.model.backbone:
        raise UserError(
            f"{run.name}.published.origin: found {published.origin!r}, whose backbone is a {kind}; the row's model, "
            f"{run.row.model}, is a {run.model.backbone}"
        )
    sizes, words = run.backbone, f"{run.row.model} of {run.row.family}, as {run.name} says"
    found = _import(path, lambda state: sizes, words, published.origin, published.which, published.drop)
    step = run.step_at(published.epoch)
    about = weights_header(run, step, "ema")  # the kind that is sampled from, whichever the publisher's file calls them
    return found._replace(header={**found.header, **about})


def _import(
    path: Path,
    sizes_of: Callable[[Mapping[str, Tensor]], dict[str, Any]],
    words: str,
    origin: str,
    weights: str,
    drop: Sequence[str],
) -> Imported:
    """The backbone of ``sizes_of`` the checkpoint's tensors, in ``words``, and what the file says of itself."""
    checkpoint = read_foreign(path)
    state, dropped = _choose(path, checkpoint, weights)
    latents = ORIGINS[origin].latents
    _check_embeddings(path, state, origin, latents)
    state, sigma = _without_sigma(state)
    sizes = sizes_of(state)
    if mismatch := _mismatch(state, sizes):
        raise UserError(f"{path}: not {words}: {mismatch}; {_fitting(state, latents)}")
    names = _forms(sizes).keys()
    foreign = _foreign(path, state.keys() - names, REASONS | dict.fromkeys(drop, "as --drop says"))
    tensors = as_float32({name: state[name] for name in names})
    if ORIGINS[origin].data_at_one:
        tensors |= turn_time(tensors)
    sha256 = file_sha256(path)
    step = checkpoint.get("steps")  # REPA and SRA say it
    header = {
        "weights": weights,
        "run": f"imported-{sha256[:8]}",
        "step": step if isinstance(step, int) else None,
        "seed": None,
        "backbone": sizes,
        "latents": latents,
        "made_of": {"file": sha256},
        "source": {"file": path.name, "sha256": sha256, "origin": origin},
        "provenance": provenance(),
    }
    return Imported(tensors, header, dropped | sigma | foreign)


def turn_time(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that change so that a backbone answers -v(x, 1 - t) where it answered v(x, t).

    A time enters only through cos(f t) and sin(f t). Those of 1 - t are a rotation and reflection of them,

        cos(f (1 - t)) = cos f cos(f t) + sin f sin(f t)        sin(f (1 - t)) = sin f cos(f t) - cos f sin(f t),

    which the first layer's weights absorb; the last layer's change their sign. Turning twice changes nothing.
    """
    cosines, sines = tensors["t_embedder.mlp.0.weight"].double().chunk(2, dim=1)  # each (D, 128)
    cos, sin = timestep_frequencies().double().cos(), timestep_frequencies().double().sin()
    turned = torch.cat([cosines * cos + sines * sin, cosines * sin - sines * cos], dim=1)
    return {"t_embedder.mlp.0.weight": turned.float()} | {name: -tensors[name] for name in LAST_LAYER}


def _choose(path: Path, checkpoint: dict[str, Any], weights: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(state dict, what else there was) of a training checkpoint, or of a file that is itself a state dict."""
    state, dropped = checkpoint, {}
    if ENTRIES.values() & checkpoint.keys():
        entry = ENTRIES[weights]
        if entry not in checkpoint:
            (other,) = ENTRIES.keys() - {weights}
            raise UserError(f"{path}: has no {weights} weights (entry {entry!r}), only --weights {other}")
        state = checkpoint[entry]
        dropped = {name: f"not the {weights} weights" for name in checkpoint if name not in (entry, "steps")}
    # Wrappers of a model for several GPUs leave their prefix on the names, once or twice.
    found = tensors_by_name(path, state)
    tensors = {re.sub(r"^(module\.)+", "", name): value for name, value in found.items()}
    if len(tensors) < len(found):
        raise UserError(f"{path}: holds a model with the prefix 'module.' and one without; keep one of them")
    return tensors, dropped


def _check_embeddings(path: Path, state: dict[str, Tensor], origin: str, latents: dict[str, Any]) -> None:
    """Raise UserError unless the tensors that sizes are read off are there, for latents of that many channels."""
    for name, dimensions in {"x_embedder.proj.weight": 4, "y_embedder.embedding_table.weight": 2}.items():
        if name not in state or state[name].ndim != dimensions or not state[name].numel():
            raise UserError(f"{path}: no checkpoint of a class-conditional diffusion transformer: no {name}")
    channels = state["x_embedder.proj.weight"].shape[1]
    if channels != latents["channels"]:
        raise UserError(
            f"{path}: latents of {channels} channels; allowed with --from {origin}: {latents['channels']}, as "
            f"{latents['vae']} makes them"
        )


def _without_sigma(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Leave out the second half of the output channels of models made with ``learn_sigma``."""
    _, channels, *patch = state["x_embedder.proj.weight"].shape
    pixels = patch[0] * patch[1]
    if any(name not in state or state[name].shape[:1] != (2 * channels * pixels,) for name in LAST_LAYER):
        return state, {}
    halves = {
        name: state[name].unflatten(0, (pixels, 2 * channels))[:, :channels].flatten(0, 1)  # channel fastest
        for name in LAST_LAYER
    }
    return state | halves, {f"output channels {channels + 1} to {2 * channels}": "learn_sigma, which no velocity uses"}


def _sizes(state: dict[str, Tensor], model: str, input_size: int) -> dict[str, Any]:
    """The arguments of `build_backbone`."""
    return {
        **MODELS[model],
        "qk_norm": "blocks.0.attn.q_norm.weight" in state,
        "input_size": input_size,
        "channels": state["x_embedder.proj.weight"].shape[1],
        "num_classes": len(state["y_embedder.embedding_table.weight"]) - 1,
    }


def _forms(sizes: dict[str, Any]) -> dict[str, Form]:
    with laid_out():
        return forms(build_backbone(**sizes).state_dict())


def _mismatch(state: dict[str, Tensor], sizes: dict[str, Any]) -> str | None:
    """In what the tensors differ from a backbone of ``sizes``; parts that no backbone has are no matter here."""
    wanted = _forms(sizes)
    parts = {_part(name) for name in wanted}
    return difference(wanted, forms(as_float32({name: state[name] for name in state if _part(name) in parts})))


def _fitting(state: dict[str, Tensor], latents: dict[str, Any]) -> str:
    fitting = [
        f"--as {model} --resolution {resolution}"
        for model in MODELS
        for resolution in RESOLUTIONS
        if not _mismatch(state, _sizes(state, model, resolution // latents["pixels"]))
    ]
    return f"it fits {' or '.join(fitting)}" if fitting else "it fits no published size"


def _foreign(path: Path, names: set[str], reasons: dict[str, str]) -> dict[str, str]:
    """What is left out, and why: the parts of the model that ``names`` belong to, none of them the backbone's.

    Raises UserError if there is no reason to leave one out.
    """
    parts = sorted(map(_part, names))
    for part in parts:
        if part not in reasons:
            raise UserError(
                f"{path}: {part}.* has no place in the backbone; if it is a head that only training used, leave it "
                f"out with --drop {part}"
            )
    return {f"{part}.*": reasons[part] for part in parts}


def _part(name: str) -> str:
    return name.split(".")[0]
