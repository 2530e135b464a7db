"""LightningDiT (Yao et al. 2025, arXiv 2501.01423): SiT with RMSNorm, SwiGLU and rotary positions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftrans.models.backbones.backbone import Backbone
from selftrans.models.backbones.parts import AdaLNZeroBlock, Attention, FinalLayer, on_cpu


class RMSNorm(nn.RMSNorm):
    """x / rms(x) * weight over the last dimension, in float32 also where autocast has halved x."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class SwiGLU(nn.Module):
    """D -> h -> D, gated: w3(silu(a) * b) with a and b the halves of w12(x) (Shazeer 2020, arXiv 2002.05202).

    h = 8 D / 3 gives three matrices as many weights as the two of an MLP with h = 4 D have.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * width // 3
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


@on_cpu
def rotary_angles(head_width: int, grid: int) -> Tensor:
    """The angles of `RotaryPositions`, (T, d), the same for both numbers of a pair."""
    count = head_width // 4
    frequencies = 10000.0 ** -(torch.arange(count, dtype=torch.float64) / count)
    axis = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies  # (grid, d / 4)
    angles = torch.cat([axis.repeat_interleave(grid, dim=0), axis.repeat(grid, 1)], dim=1)  # (T, d / 2)
    return angles.repeat_interleave(2, dim=1)


class RotaryPositions(nn.Module):
    """Queries or keys of a square grid, (N, heads, T, d), turned by their positions, so that only differences count.

    Neighbouring numbers make a pair, and the pair a vector that is turned by coordinate * frequency: the first
    d / 4 pairs by the row, the rest by the column, at frequencies that fall geometrically from 1 towards 1 / 10000
    (RoPE, Su et al. 2021, arXiv 2104.09864; on two axes as in EVA-02, Fang et al. 2023, arXiv 2303.11331).

    Raises ValueError if d is not a multiple of 4.
    """

    def __init__(self, head_width: int, grid: int) -> None:
        super().__init__()
        if head_width % 4:
            raise ValueError(f"head width {head_width} is not a multiple of 4, as pairs on two axes need")
        angles = rotary_angles(head_width, grid)
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        quarter_turn = torch.stack([-second, first], dim=-1).flatten(-2)
        return x * self.cosines + quarter_turn * self.sines


class LightningDiTBlock(AdaLNZeroBlock):
    """RMS norms, attention that knows positions, and SwiGLU; ``qk_norm`` adds RMS norms on queries and keys."""

    def __init__(self, width: int, heads: int, qk_norm: bool, rope: RotaryPositions) -> None:
        attn = Attention(width, heads, RMSNorm if qk_norm else nn.Identity, rope)
        super().__init__(width, RMSNorm, attn, SwiGLU(width))


class LightningDiT(Backbone):
    """LightningDiT with the architecture, start and parameter names of the published checkpoints.

    It comes in the sizes of SiT (`sit.SIZES`), published with patches of one latent pixel. Rotary positions are
    shared by all blocks and stand beside the fixed ones that are added to the tokens. ``head=False`` leaves the
    final layer out, as in `sit.SiT`.

    Raises ValueError if sizes do not divide.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        heads: int,
        patch_size: int,
        input_size: int,
        channels: int,
        num_classes: int,
        qk_norm: bool = False,
        head: bool = True,
    ) -> None:
        super().__init__(
            depth=depth,
            width=width,
            patch_size=patch_size,
            input_size=input_size,
            channels=channels,
            num_classes=num_classes,
        )
        rope = RotaryPositions(width // heads, input_size // patch_size)
        self.blocks = nn.ModuleList(LightningDiTBlock(width, heads, qk_norm, rope) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch_size**2 * channels, RMSNorm) if head else None
