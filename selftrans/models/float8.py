"""Products of frozen linear layers in float8: inputs and weights of four significant bits, sums of more.

x W^T is taken of x / s and W / w, rounded to e4m3, and multiplied by s w. A token has a scale s of its own, and an
output channel a w: each is its largest magnitude / 448, the largest number of e4m3. A Hopper GPU multiplies float8 as
it is; elsewhere the same rounded numbers are multiplied in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
MULTIPLE = 16  # of both sizes of a weight, as the GPU's products need
CAPABILITY = (9, 0)  # of the first GPUs that scale rows and columns


def to_float8(block: nn.Module) -> None:
    """Replace the linear layers of a block's attention and MLP, nearly all of its work, by `Float8Linear`."""
    for part in [part for half in (block.attn, block.mlp) for part in half.modules()]:
        for name, child in part.named_children():
            if isinstance(child, nn.Linear) and not any(size % MULTIPLE for size in child.weight.shape):
                setattr(part, name, Float8Linear(child))


class Float8Linear(nn.Module):
    """What replaces a linear layer D -> E, with an answer in bfloat16; for no training."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = rounded(linear.weight.detach().float())
        self.register_buffer("weight", weight)  # (E, D)
        self.register_buffer("scale", scale)  # (E, 1)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        tokens, scale = rounded(x.flatten(0, -2).float())
        if x.is_cuda:
            product = torch._scaled_mm(
                tokens,
                self.weight.t(),
                scale_a=scale,
                scale_b=self.scale.t(),
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        else:
            with torch.autocast(x.device.type, enabled=False):
                product = (F.linear(tokens.float(), self.weight.float()) * scale * self.scale.t()).bfloat16()
        if self.bias is not None:
            product = product + self.bias
        return product.unflatten(0, x.shape[:-1])


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(rows / scales in e4m3, scales (N, 1)) of rows (N, D)."""
    scales = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (rows / scales).to(E4M3), scales
