"""Frozen vision encoders through timm, whose patch tokens are REPA's targets.

A scale trains a small one of its own (`build_vit`), or takes one of those that REPA and its successors compare
(`PUBLISHED`), from a file of its published weights.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftrans.config import TOKEN_PIXELS
from selftrans.errors import UserError
from selftrans.files import load_tensors, save_tensors
from selftrans.pixels import from_uint8

# Our names, and timm's.
PUBLISHED = {
    "dinov2-s": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-b": "vit_base_patch14_dinov2.lvd142m",
    "dinov2-l": "vit_large_patch14_dinov2.lvd142m",
    "dinov2-g": "vit_giant_patch14_dinov2.lvd142m",
    "dinov2-s-reg": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov2-b-reg": "vit_base_patch14_reg4_dinov2.lvd142m",
    "dinov2-l-reg": "vit_large_patch14_reg4_dinov2.lvd142m",
    "dinov2-g-reg": "vit_giant_patch14_reg4_dinov2.lvd142m",
    "dino-s": "vit_small_patch16_224.dino",
    "dino-b": "vit_base_patch16_224.dino",
    "mocov3-s": "vit_small_patch16_224.dino",  # timm has no weights of MoCo v3, but its architecture
    "mocov3-b": "vit_base_patch16_224.dino",
    "mae-b": "vit_base_patch16_224.mae",
    "mae-l": "vit_large_patch16_224.mae",
    "clip-b": "vit_base_patch16_clip_quickgelu_224.openai",
    "clip-l": "vit_large_patch14_clip_quickgelu_224.openai",
    "ijepa-h": "vit_huge_patch14_gap_224.in1k_ijepa",
}

OPTIONS = {"mocov3-s": {"num_heads": 12}}  # where timm's architecture of that size is another
NOT_NORMALISED = ("mae-", "clip-")  # REPA takes their tokens before the final norm


def build_vit(
    *, classes: int, size: int = 32, patch_size: int = 8, width: int = 64, depth: int = 2, heads: int = 2
) -> nn.Module:
    """timm's VisionTransformer as a classifier of pixels in [-1, 1], (N, 3, size, size) -> (N, classes).

    It averages its normalised patch tokens, without class token, so that every token carries its share of the
    class. The defaults give 4×4 tokens, as many as the backbones of the small scale have.
    """
    from timm.models.vision_transformer import VisionTransformer  # a second to import

    return VisionTransformer(
        img_size=size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=classes,
        class_token=False,
        global_pool="avg",
        fc_norm=False,  # keep the final norm on the tokens, before their average
    )


def build_published(*, published: str, image_size: int) -> nn.Module:
    """A published encoder for images of ``image_size`` pixels, one token per 16×16 of them; its weights on "meta".

    With patches of 14 pixels it sees 256-pixel images at 224, 512 at 448, as in REPA. Raises UserError if there is
    no such encoder, or if tokens do not fill the image.
    """
    import timm

    if published not in PUBLISHED:
        raise UserError(f"no encoder is called {published!r}; allowed: {', '.join(PUBLISHED)}")
    if image_size % TOKEN_PIXELS:
        raise UserError(f"encoder {published}: found images of {image_size} pixels; allowed: multiples of 16")
    with torch.device("meta"):  # weights will be read, so none are drawn
        vit = timm.create_model(PUBLISHED[published], num_classes=0, **OPTIONS.get(published, {}))
        size = image_size // TOKEN_PIXELS * vit.patch_embed.patch_size[0]
        vit.set_input_size(img_size=(size, size))
    if published.startswith(NOT_NORMALISED):
        vit.norm = nn.Identity()
    return vit


class Encoder:
    """A frozen vision transformer. No module, so that a method that holds one does not register it."""

    def __init__(self, vit: nn.Module, architecture: Mapping[str, Any]) -> None:
        """``architecture`` holds the arguments of `build_vit` or `build_published` that made ``vit``."""
        self.vit = vit.eval().requires_grad_(False)
        self.architecture = dict(architecture)
        self.width: int = vit.embed_dim
        self.depth = len(vit.blocks)

    def to(self, device: torch.device | str) -> "Encoder":
        """Move the weights."""
        self.vit.to(device)
        return self

    def prepare(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 -> what the network knows: [-1, 1], or the mean, deviation and size of its own.

        Resizing is bicubic, as in REPA.
        """
        if "published" not in self.architecture:
            return from_uint8(images)
        known = self.vit.pretrained_cfg
        mean, deviation = (torch.tensor(known[key], device=images.device).view(3, 1, 1) for key in ("mean", "std"))
        return F.interpolate((images / 255 - mean) / deviation, self.vit.patch_embed.img_size, mode="bicubic")

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 -> patch tokens (N, T, D) after the final norm, row by row over the image."""
        tokens = self.vit.forward_features(self.prepare(images))
        return tokens[:, self.vit.num_prefix_tokens :]

    @torch.no_grad()
    def features_and_attention(self, images: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """`features`, and from the same pass the attention logits (N, heads, T, T) in each of ``layers``.

        Layers are counted from 1; logits are those among patches, scaled, before their softmax.
        """
        vit, patches = self.vit, slice(self.vit.num_prefix_tokens, None)
        logits = {}
        tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(self.prepare(images))))
        for layer, block in enumerate(vit.blocks, start=1):
            if layer in layers:
                logits[layer] = attention_logits(block.attn, block.norm1(tokens))[:, :, patches, patches]
            tokens = block(tokens)
        return vit.norm(tokens)[:, patches], [logits[layer] for layer in layers]

    def save(self, path: Path, source: Mapping[str, str] | None = None) -> str:
        """Write weights, architecture and what they were made of; returns the SHA-256 of the weights."""
        return save_tensors(path, self.vit.state_dict(), {"architecture": self.architecture, "source": source})

    @classmethod
    def load(cls, path: Path) -> "Encoder":
        """Read what `save` wrote. Raises UserError if the file is missing or damaged."""
        weights, header = load_tensors(path)
        architecture = header["architecture"]
        vit = build_published(**architecture) if "published" in architecture else build_vit(**architecture)
        vit.load_state_dict(weights, assign=True)
        return cls(vit, architecture)

    @classmethod
    def from_published(cls, published: str, weights: Path, image_size: int) -> "Encoder":
        """Read published weights as their authors or timm give them away, .safetensors or a PyTorch file.

        Positions are resampled to the grid of images of ``image_size`` pixels. Raises UserError if the file is
        missing, holds more than tensors, or holds those of another encoder.
        """
        from timm.models.vision_transformer import checkpoint_filter_fn

        vit = build_published(published=published, image_size=image_size)
        tensors = checkpoint_filter_fn(_encoder_of_moco(_read_weights(Path(weights))), vit)
        try:
            missing, unknown = vit.load_state_dict(tensors, strict=False, assign=True)
        except RuntimeError as error:
            raise UserError(f"{weights}: not the weights of {published}: {str(error).splitlines()[-1]}") from error
        # Heads and decoders are left over; a block must fit.
        if misfits := missing + [name for name in unknown if name.startswith("blocks.")]:
            where = "missing in the file" if missing else "unknown to the encoder"
            raise UserError(f"{weights}: not the weights of {published}: {misfits[0]} is {where}")
        return cls(vit.float(), {"published": published, "image_size": image_size})


def attention_logits(attention: nn.Module, x: Tensor) -> Tensor:
    """The logits (N, heads, T, T) of a timm attention layer at its input x (N, T, D), scaled, before the softmax."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1))  # (N, T, 3, heads, D / heads)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    return (attention.q_norm(q) * attention.scale) @ attention.k_norm(k).transpose(2, 3)


def _encoder_of_moco(content: dict[str, Any]) -> dict[str, Any]:
    """What MoCo v3 trained of a checkpoint of its code, without momentum encoder and predictor; others as they are."""
    prefix, tensors = "module.base_encoder.", content.get("state_dict", content)
    encoder = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return encoder or content


def _read_weights(path: Path) -> dict[str, Any]:
    """The content of a file that other people wrote; nothing in it is run. Raises UserError if it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, or more than a file of tensors ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}; allowed: tensors by name")
    return content
