"""The parts of a diffusion transformer, under the names that published checkpoints give them.

N examples, T tokens, D = width. The architecture is that of DiT (Peebles and Xie 2023, arXiv 2212.09748).
"""

import math
from collections.abc import Callable
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def on_cpu(constants: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``constants`` computed on the CPU also where a model is laid out without memory (device "meta").

    There, each operation would load PyTorch's compiler, which takes as long as all the rest of PyTorch.
    """

    @wraps(constants)
    def computed(*sizes: int) -> Tensor:
        with torch.device("cpu"):
            return constants(*sizes)

    return computed


class PatchEmbed(nn.Module):
    """Images (N, C, H, W) -> one token per patch, row by row: (N, T, D)."""

    def __init__(self, patch_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        # Without this copy the residual stream keeps the convolution's strides, and every norm copies it anew.
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """Patches of a square grid (N, T, p * p * C), channel fastest -> images (N, C, H, W)."""
    count, tokens, _ = patches.shape
    grid = math.isqrt(tokens)
    x = patches.view(count, grid, grid, patch_size, patch_size, -1)  # (N, rows, columns, p, p, C)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(count, -1, grid * patch_size, grid * patch_size)


@on_cpu
def sincos_positions(width: int, grid: int) -> Tensor:
    """Fixed positions on a square grid, (grid * grid, D): the first D / 2 tell the column, the rest the row.

    Each half holds the sines, then the cosines of the coordinate 0 ... grid - 1 at D / 4 frequencies, which
    fall geometrically from 1 towards 1 / 10000.
    """
    count = width // 4
    frequencies = 10000.0 ** -(torch.arange(count, dtype=torch.float64) / count)
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1).float()  # (grid, D / 2)
    return torch.cat([axis.repeat(grid, 1), axis.repeat_interleave(grid, dim=0)], dim=1)


@on_cpu
def timestep_frequencies() -> Tensor:
    """The angular frequencies of `TimestepEmbedder`, (128,), falling geometrically from 1 towards 1 / 10000."""
    return torch.exp(-math.log(10000) * torch.arange(128) / 128)


class TimestepEmbedder(nn.Module):
    """t (N,) in [0, 1], not multiplied by 1000 -> 128 cosines and 128 sines -> (N, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", timestep_frequencies(), persistent=False)
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class LabelEmbedder(nn.Module):
    """Labels (N,) -> (N, D); the last row of the table, ``num_classes``, stands for "no label"."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class Attention(nn.Module):
    """Multi-head self-attention, (N, T, D) -> (N, T, D).

    Queries and keys of a head, (N, heads, T, D / heads), pass ``qk_norm`` (built for that width), then ``rope``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
        rope: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be shared among {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = qk_norm(width // heads)
        self.k_norm = qk_norm(width // heads)
        self.rope = rope or nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, need_logits: bool = False) -> tuple[Tensor, Tensor | None]:
        """The attended tokens and, if needed, the logits (N, heads, T, T) that softmax turns into weights.

        Logits cost time and memory: the fused kernel that is used without them never holds all of them.
        """
        count, tokens, _ = x.shape
        qkv = self.qkv(x).view(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind()  # each (N, heads, T, D / heads)
        q, k = self.rope(self.q_norm(q)), self.rope(self.k_norm(k))
        logits = None
        if need_logits:
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
            x = logits.softmax(dim=3) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2)), logits


class Mlp(nn.Module):
    """D -> 4D -> D with the tanh form of GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def adaln_modulation(width: int, count: int) -> nn.Sequential:
    """The conditioning (N, D) -> ``count`` vectors that shift, scale or gate tokens: (N, count * D)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (N, T, D) * (1 + scale) + shift, these (N, 1, D), in one pass over x."""
    return torch.addcmul(shift, x, 1 + scale)


class AdaLNZeroBlock(nn.Module):
    """Attention, then MLP, each shifted and scaled at its entry and gated at its exit by the conditioning."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module], attn: Attention, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = attn
        self.norm2 = norm(width)
        self.mlp = mlp
        self.adaLN_modulation = adaln_modulation(width, 6)

    def forward(self, x: Tensor, conditioning: Tensor, need_logits: bool = False) -> tuple[Tensor, Tensor | None]:
        """Tokens (N, T, D), conditioning (N, D) -> tokens and, if needed, attention logits (N, heads, T, T)."""
        modulations = self.adaLN_modulation(conditioning)[:, None].chunk(6, dim=2)  # each (N, 1, D)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulations
        attended, logits = self.attn(modulate(self.norm1(x), shift_attn, scale_attn), need_logits)
        x = x + gate_attn * attended
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp)), logits


class FinalLayer(nn.Module):
    """From tokens to the values of their patches."""

    def __init__(self, width: int, values: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm_final = norm(width)
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = adaln_modulation(width, 2)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """Tokens (N, T, D), conditioning (N, D) -> (N, T, values)."""
        shift, scale = self.adaLN_modulation(conditioning)[:, None].chunk(2, dim=2)  # each (N, 1, D)
        return self.linear(modulate(self.norm_final(x), shift, scale))


@torch.no_grad()
def initialise_xavier(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Xavier-uniform weights, a convolution taken as the matrix that acts on flat patches; zero bias."""
    weight = nn.init.xavier_uniform_(torch.empty(layer.weight.flatten(1).shape), generator=generator)
    layer.weight.copy_(weight.view_as(layer.weight))
    layer.bias.zero_()


@torch.no_grad()
def initialise_normal(layer: nn.Linear | nn.Embedding, generator: torch.Generator) -> None:
    """Normal weights with standard deviation 0.02; zero bias where there is one."""
    layer.weight.copy_(torch.empty(layer.weight.shape).normal_(std=0.02, generator=generator))
    if isinstance(layer, nn.Linear):
        layer.bias.zero_()


@torch.no_grad()
def initialise_zero(layer: nn.Linear) -> None:
    """Zero weights and bias: the layer answers zero until it has learned something."""
    layer.weight.zero_()
    layer.bias.zero_()
