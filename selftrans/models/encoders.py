"""Frozen vision encoders through timm, whose patch tokens are REPA's targets.

A scale trains a small one of its own (`build_vit`), or takes one of those that REPA and its successors compare
(`PUBLISHED`), from a file of its published weights.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftrans.artifacts import DAMAGE, load_tensors, refuse_damage, save_tensors
from selftrans.config.families import TOKEN_PIXELS
from selftrans.data.pixels import from_uint8
from selftrans.errors import UserError
from selftrans.models.foreign import as_float32, read_foreign, tensors_by_name
from selftrans.models.frozen import Frozen
from selftrans.models.layout import laid_out
from selftrans.models.strict import load_strictly

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

# What published files hold besides the encoder: heads of MoCo v3 and CLIP, the decoder and the mask of MAE.
NOT_OF_THE_ENCODER = ("head.", "decoder_", "mask_token")


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
    with laid_out():  # weights will be read, so none are drawn
        vit = timm.create_model(PUBLISHED[published], num_classes=0, **OPTIONS.get(published, {}))
        size = image_size // TOKEN_PIXELS * vit.patch_embed.patch_size[0]
        vit.set_input_size(img_size=(size, size))
    if published.startswith(NOT_NORMALISED):
        vit.norm = nn.Identity()
    return vit


class Encoder(Frozen):
    """A frozen vision transformer."""

    def __init__(
        self, vit: nn.Module, architecture: Mapping[str, Any], header: Mapping[str, Any] | None = None
    ) -> None:
        """``architecture`` holds the arguments of `build_vit` or `build_published` that made ``vit``.

        ``header`` is that of the file it was read from.
        """
        super().__init__(vit)
        self.vit = vit
        self.architecture = dict(architecture)
        self.header = dict(header or {})
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
        mean, deviation = (per_channel(tuple(known[key]), images.device) for key in ("mean", "std"))
        return F.interpolate((images / 255 - mean) / deviation, self.vit.patch_embed.img_size, mode="bicubic")

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 -> patch tokens (N, T, D) after the final norm, row by row over the image."""
        with self.forward_pass(images.device):
            tokens = self.vit.forward_features(self.prepare(images))
        return tokens[:, self.vit.num_prefix_tokens :]

    def features_and_attention(self, images: Tensor, layers: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """`features`, and from the same pass the attention logits (N, heads, T, T) in each of ``layers``.

        Layers are counted from 1; logits are those among patches, scaled, before their softmax.
        """
        vit, patches = self.vit, slice(self.vit.num_prefix_tokens, None)
        logits = {}
        with self.forward_pass(images.device):
            tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(self.prepare(images))))
            for layer, block in enumerate(vit.blocks, start=1):
                if layer in layers:
                    logits[layer] = attention_logits(block.attn, block.norm1(tokens))[:, :, patches, patches]
                tokens = block(tokens)
            return vit.norm(tokens)[:, patches], [logits[layer] for layer in layers]

    def save(self, path: Path, about: Mapping[str, Any]) -> str:
        """Write weights, architecture and ``about``: its key, and what it was made of.

        Returns the SHA-256 of the weights.
        """
        return save_tensors(path, "encoder", self.vit.state_dict(), {**about, "architecture": self.architecture})

    @classmethod
    def load(cls, path: Path, expected: Mapping[str, Any] | None = None) -> "Encoder":
        """Read what `save` wrote.

        Raises UserError if the file is missing, damaged, not what is ``expected``, or does not fit its architecture.
        """
        weights, header = load_tensors(path, "encoder", expected)
        with refuse_damage(path):
            architecture = header["architecture"]
            vit = build_published(**architecture) if "published" in architecture else build_vit(**architecture)
        load_strictly(vit, weights, path, assign=True)
        return cls(vit, architecture, header)

    @classmethod
    def from_published(cls, published: str, weights: Path, image_size: int) -> "Encoder":
        """Read published weights as their authors or timm give them away, .safetensors or a PyTorch file.

        Positions are resampled to the grid of images of ``image_size`` pixels. Raises UserError if the file is
        missing, holds more than tensors, or holds those of another encoder, one too many or one too few.
        """
        vit = build_published(published=published, image_size=image_size)
        load_published(vit, published, weights)
        return cls(vit, {"published": published, "image_size": image_size})


def load_published(vit: nn.Module, published: str, weights: Path) -> None:
    """Fill ``vit``, which is on "meta", from a file as the authors of ``published`` or timm give it away.

    Positions are resampled to its grid as timm does it. Raises UserError as `Encoder.from_published` does.
    """
    wrong = f"not the weights of {published}"
    tensors = _as_in_timm(weights, wrong, _encoder_in(weights, read_foreign(weights)), vit)
    if published.startswith(NOT_NORMALISED):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.")}
    load_strictly(vit, tensors, weights, wrong=wrong, remedy="name another file", assign=True)


@lru_cache
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One number for each channel (C, 1, 1), copied to the device once: a GPU would be waited for each time."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def attention_logits(attention: nn.Module, x: Tensor) -> Tensor:
    """The logits (N, heads, T, T) of a timm attention layer at its input x (N, T, D), scaled, before the softmax."""
    qkv = attention.qkv(x).unflatten(2, (3, attention.num_heads, -1))  # (N, T, 3, heads, D / heads)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    return (attention.q_norm(q) * attention.scale) @ attention.k_norm(k).transpose(2, 3)


def _encoder_in(path: Path, content: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of the encoder in a file: MAE has it below "model", I-JEPA below "encoder".

    Of MoCo v3's, what was trained, without momentum encoder and predictor.
    """
    for entry in ("model", "state_dict", "encoder"):
        content = content[entry] if isinstance(content.get(entry), dict) else content
    tensors = tensors_by_name(path, content)
    for prefix in ("module.base_encoder.", "module."):
        if any(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return tensors


def _as_in_timm(path: Path, wrong: str, state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """``state`` under timm's names and in float32, without heads, with positions resampled to the grid of ``vit``."""
    from timm.models.vision_transformer import checkpoint_filter_fn

    try:
        tensors = checkpoint_filter_fn(dict(state), vit)
    except (*DAMAGE, AssertionError) as error:  # tensors of shapes that it does not expect
        raise UserError(f"{path}: {wrong} ({' '.join(str(error).split())[:200]}); name another file") from error
    patches = "patch_embed.proj.weight"
    if patches in tensors and all(tensors[patches] is not value for value in state.values()):
        raise UserError(f"{path}: {wrong}: its patches are not of {vit.patch_embed.patch_size[0]} pixels")
    return as_float32({name: tensors[name] for name in tensors if not name.startswith(NOT_OF_THE_ENCODER)})
