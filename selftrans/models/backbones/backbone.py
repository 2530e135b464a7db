"""What every backbone is: tokens through one loop over blocks, the layers asked for, a velocity at the end."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selftrans.models.backbones.parts import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    initialise_normal,
    initialise_xavier,
    initialise_zero,
    sincos_positions,
    unpatchify,
)

# What may be captured, layers counted from 1. A layer's number stands for the residual stream after that block,
# (N, T, D); ("attention", layer) for the block's attention logits, scaled, before the softmax, (N, heads, T, T).
Feature: TypeAlias = int | tuple[Literal["attention"], int]


def layer_of(feature: Feature) -> int:
    """The layer whose block makes a feature."""
    return feature if isinstance(feature, int) else feature[1]


class Prediction(NamedTuple):
    """What a backbone says about x_t."""

    velocity: Tensor  # (N, C, H, W)
    features: dict[Feature, Tensor]


class Backbone(nn.Module):
    """A diffusion transformer of any kind: a subclass adds the ``blocks`` and the ``final_layer``.

    A block maps tokens (N, T, D) and the conditioning (N, D) to tokens, and shows its attention logits if asked;
    the final layer maps both to patches (N, T, p * p * C'), of which the first C channels are the velocity. A
    backbone whose ``final_layer`` is None is a trunk: it has features but no velocity, all that a frozen teacher
    needs.

    Raises ValueError if the patches do not fill the input or the positions do not fill the width.
    """

    blocks: nn.ModuleList
    final_layer: nn.Module | None

    def __init__(
        self, *, depth: int, width: int, patch_size: int, input_size: int, channels: int, num_classes: int
    ) -> None:
        super().__init__()
        if input_size % patch_size:
            raise ValueError(f"input_size {input_size} is not a multiple of patch_size {patch_size}")
        if width % 4:
            raise ValueError(f"width {width} is not a multiple of 4, as sine and cosine of two axes need")
        grid = input_size // patch_size
        self.depth = depth
        self.width = width
        self.patch_size = patch_size
        self.input_size = input_size
        self.channels = channels
        self.num_classes = num_classes
        self.null_label = num_classes
        self.tokens = grid * grid
        self.checkpointed = False
        self.x_embedder = PatchEmbed(patch_size, channels, width)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(num_classes, width)
        self.pos_embed = nn.Parameter(sincos_positions(width, grid)[None], requires_grad=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor, capture: Sequence[Feature] = ()) -> Prediction:
        """Predict the velocity at x (N, C, H, W), t (N,) in [0, 1] for labels y (N,), and capture features.

        Capturing tokens changes no number; a block whose attention is captured does without the fused kernel,
        which changes rounding. Raises ValueError if a layer in ``capture`` does not exist, RuntimeError if this is a
        trunk.
        """
        if self.final_layer is None:
            raise RuntimeError("a backbone without its final layer has features, but no velocity")
        tokens, conditioning, features = self._run_blocks(x, t, y, capture, last=self.depth)
        patches = self.final_layer(tokens, conditioning)
        return Prediction(unpatchify(patches, self.patch_size)[:, : self.channels], features)

    def features(self, x: Tensor, t: Tensor, y: Tensor, capture: Sequence[Feature]) -> dict[Feature, Tensor]:
        """The features that `forward` captures, bit for bit; nothing after the deepest of them is run.

        Raises ValueError if a layer in ``capture`` does not exist.
        """
        return self._run_blocks(x, t, y, capture, last=max(map(layer_of, capture), default=0))[2]

    @property
    def parts(self) -> list[nn.Module]:
        """The blocks and, unless this is a trunk, the final layer: nearly all of the work, in the order of a pass."""
        return [*self.blocks, *([] if self.final_layer is None else [self.final_layer])]

    def checkpoint_activations(self) -> None:
        """From now on keep only the tokens between blocks for the backward pass, which runs each block again.

        Less memory, more time, the same gradients.
        """
        self.checkpointed = True

    def _run_blocks(
        self, x: Tensor, t: Tensor, y: Tensor, capture: Sequence[Feature], last: int
    ) -> tuple[Tensor, Tensor, dict[Feature, Tensor]]:
        """Run blocks 1 to ``last``: the tokens after them, the conditioning, and the captured features."""
        for layer in map(layer_of, capture):
            if not 1 <= layer <= self.depth:
                raise ValueError(f"there is no layer {layer}; this backbone has layers 1 to {self.depth}")
        tokens = self.x_embedder(x) + self.pos_embed  # (N, T, D)
        conditioning = self.t_embedder(t) + self.y_embedder(y)  # (N, D)
        features: dict[Feature, Tensor] = {}
        for layer, block in zip(range(1, last + 1), self.blocks, strict=False):
            tokens, logits = self._run_block(block, tokens, conditioning, ("attention", layer) in capture)
            if layer in capture:
                features[layer] = tokens
            if logits is not None:
                features["attention", layer] = logits
        return tokens, conditioning, features

    def _run_block(self, block: nn.Module, *inputs: Tensor | bool) -> tuple[Tensor, Tensor | None]:
        if self.checkpointed:
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)  # blocks draw nothing
        return block(*inputs)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights from one CPU generator; the velocity is then exactly zero.

        adaLN-zero, as in DiT: every block starts as the identity and the last layer as zero. Weights are drawn
        from the first layer to the last, so a trunk gets the same ones as the whole backbone.
        """
        initialise_xavier(self.x_embedder.proj, generator)
        initialise_normal(self.t_embedder.mlp[0], generator)
        initialise_normal(self.t_embedder.mlp[2], generator)
        initialise_normal(self.y_embedder.embedding_table, generator)
        for block in self.blocks:
            initialise_zero(block.adaLN_modulation[1])
            for layer in (*block.attn.modules(), *block.mlp.modules()):
                if isinstance(layer, nn.Linear):
                    initialise_xavier(layer, generator)
        if self.final_layer is not None:
            initialise_zero(self.final_layer.adaLN_modulation[1])
            initialise_zero(self.final_layer.linear)
        for layer in self.modules():
            if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
                layer.reset_parameters()
