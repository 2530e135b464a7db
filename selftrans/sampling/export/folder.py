"""The folder: weights and VAE as diffusers stores models, our code, the card, and a record of what all that is.

model_index.json  the pipeline: its class, its parts, how it samples, names of classes
pipeline.py       its code
transformer/      the backbone: config.json, safetensors, its code
vae/              a plain AutoencoderKL, with mean and deviation of its latents in its config.json
README.md         the card
export.json       what it was made of, and the SHA-256 of every other file
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrans import __version__
from selftrans.artifacts import read_record, save_tensors, write_record
from selftrans.errors import UserError
from selftrans.files import atomic_folder, file_sha256, write_json
from selftrans.models.layout import laid_out
from selftrans.models.strict import load_strictly
from selftrans.sampling.export.bundle import bundle
from selftrans.sampling.export.card import Card
from selftrans.sampling.image_model import ImageModel, sampling_of

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

RECORD = "export.json"

# The files of code, without the ending: diffusers finds a component's by its name in model_index.json.
PIPELINE, TRANSFORMER = "pipeline", "selftrans_transformer"

PREAMBLE = '''"""{summary} This file needs torch, numpy and diffusers{more}, nothing else.

Written by selftrans {version} from its own sources. Apache License, Version 2.0.
"""
'''


def require_own(folder: Path) -> None:
    """Raise UserError if there is something at ``folder`` that is no export, and not empty."""
    if folder.is_dir() and any(folder.iterdir()):
        remedy = "--output replaces nothing but an export; name another folder"
        if not (folder / RECORD).exists():
            raise UserError(f"{folder}: holds no {RECORD}; {remedy}")
        read_record(folder / RECORD, "export", remedy=remedy)


def write_export(folder: Path, model: ImageModel, card: Card) -> None:
    """Write the folder, whole or not at all.

    Raises UserError if there is something else at ``folder``, or if the VAE is none that diffusers knows.
    """
    require_own(folder)
    with atomic_folder(folder) as part:
        _write_transformer(part / "transformer", model)
        _write_vae(part / "vae", model)
        (part / "pipeline.py").write_text(code("pipeline"), encoding="utf-8")
        (part / "README.md").write_text(card.text(), encoding="utf-8")
        write_json(part / "model_index.json", _index(card))
        files = sorted(path for path in part.rglob("*") if path.is_file())
        about = {key: card.header[key] for key in ("run", "step", "seed")}
        about |= {"weights_sha256": card.header["sha256"], "vae_sha256": card.vae["sha256"]}
        hashes = {path.relative_to(part).as_posix(): file_sha256(path) for path in files}
        write_record(part / RECORD, "export", {**about, "provenance": card.provenance, "files": hashes})


def code(module: str) -> str:
    """The text of a file of code: "pipeline" or "transformer"."""
    words = {
        "pipeline": {"summary": "Class-conditional images as a pipeline of diffusers.", "more": " (for dopri5, scipy)"},
        "transformer": {"summary": "A diffusion transformer as a model of diffusers.", "more": ""},
    }
    preamble = PREAMBLE.format(version=__version__, **words[module])
    return bundle(f"selftrans.sampling.export.{module}", preamble)


def _index(card: Card) -> dict[str, Any]:
    import diffusers

    return {
        "_class_name": [PIPELINE, "SelftransPipeline"],
        "_diffusers_version": diffusers.__version__,
        "transformer": [TRANSFORMER, "SelftransTransformer"],
        "vae": ["diffusers", "AutoencoderKL"],
        "sampling": asdict(sampling_of(card.preset)),
        "id2label": {str(label): name for label, name in card.names.items()} or None,
    }


def _write_transformer(folder: Path, model: ImageModel) -> None:
    from selftrans.sampling.export.transformer import SelftransTransformer  # diffusers takes seconds to import

    with laid_out():
        transformer = SelftransTransformer(**model.header["backbone"])
    load_strictly(transformer.network, model.backbone.state_dict(), folder, assign=True)
    _write_model(folder, transformer, model.header)
    (folder / f"{TRANSFORMER}.py").write_text(code("transformer"), encoding="utf-8")


def _write_vae(folder: Path, model: ImageModel) -> None:
    """The VAE under its plain name; mean and deviation stand where diffusers' pipelines look for them."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    found = model.tokenizer.vae
    if type(found) is not AutoencoderKL:
        raise UserError(f"{folder}: not written, since the VAE is {type(found).__name__}; allowed: AutoencoderKL")
    settings = {name: value for name, value in found.config.items() if not name.startswith("_")}  # such as paths
    latents = {"latents_mean": model.stats.mean, "latents_std": model.stats.std, "scaling_factor": 1.0}
    with laid_out():
        vae = AutoencoderKL(**(settings | latents | {"shift_factor": None}))
    load_strictly(vae, found.state_dict(), folder, assign=True)
    _write_model(folder, vae, model.tokenizer.header)


def _write_model(folder: Path, model: "ModelMixin", header: Mapping[str, Any]) -> None:
    """As ``save_pretrained`` does, but with the ``header`` of our own file in the weights."""
    model.save_config(folder)
    about = {key: value for key, value in header.items() if key not in ("kind", "sha256")}
    save_tensors(folder / "diffusion_pytorch_model.safetensors", "exported weights", model.state_dict(), about)
