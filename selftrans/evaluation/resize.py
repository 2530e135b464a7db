"""Bilinear resizing as TensorFlow 1 does it, which is part of what an Inception feature is."""

import torch
from torch import Tensor


def resize_bilinear(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W) of any type -> (N, C, size, size) float32, channels last in memory.

    TensorFlow 1's ResizeBilinear with align_corners=False: the source of pixel i is at i·H/size, without a shift
    by half a pixel and without antialiasing. The values are, bit for bit, those of torch-fidelity's
    ``interpolate_bilinear_2d_like_tensorflow1x``; rows and columns are interpolated one after the other, so that
    there are two gathers of lines in the place of eight.
    """
    x = images.permute(0, 2, 3, 1).contiguous()  # (N, H, W, C)
    x = _interpolate(x, 2, size)  # columns first, as the reference has it: rounding depends on the order
    return _interpolate(x, 1, size).permute(0, 3, 1, 2)


def _interpolate(x: Tensor, dim: int, size: int) -> Tensor:
    """Resize one dimension to ``size``."""
    length = x.shape[dim]
    if length == size:
        return x.float()
    source = torch.arange(size, dtype=torch.float32, device=x.device) * (length / size)
    low = source.long()
    high = (low + 1).clamp_max(length - 1)
    share = (source - low).reshape(-1, *[1] * (x.ndim - dim - 1))
    below, above = (x.index_select(dim, index).float() for index in (low, high))
    return above.sub_(below).mul_(share).add_(below)
