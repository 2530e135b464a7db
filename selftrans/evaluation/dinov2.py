"""DINOv2 (Oquab et al., 2023) as an extractor: the class token after the final norm, as in Stein et al. (2023).

Images are resized as in EDM2's evaluation, positions as in the authors' own code.
"""

from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftrans.evaluation.features import Features
from selftrans.models.encoders import PUBLISHED, load_published
from selftrans.models.layout import laid_out

PIXELS = 224  # to a side, of what it sees
PATCH = 14
GRID = PIXELS // PATCH

# What the authors add to the number of tokens before they divide by that of positions; the factor decides the sampling
# points.
OFFSET = 0.1


class DinoV2(nn.Module):
    """A vision transformer of patches of 14 pixels at 16×16 of them, from images of any size; weights on "meta"."""

    def __init__(self, published: str) -> None:
        super().__init__()
        with laid_out():
            self.vit = timm.create_model(PUBLISHED[published], num_classes=0, img_size=PIXELS)

    def features(self, images: Tensor) -> Features:
        """Images (n, 3, H, W) uint8 -> pool (n, D): the class token. Raises ValueError for other images."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"expected (n, 3, H, W) uint8 images, got {tuple(images.shape)} {images.dtype}")
        return Features(self.vit.forward_features(prepare(images, self.vit.pretrained_cfg))[:, 0])


def prepare(images: Tensor, known: dict[str, tuple[float, float, float]]) -> Tensor:
    """Images (n, 3, H, W) uint8 -> (n, 3, 224, 224), bicubic with antialiasing, of the mean and deviation ``known``."""
    pixels = F.interpolate(images.float(), (PIXELS, PIXELS), mode="bicubic", antialias=True)
    mean, deviation = (torch.tensor(known[key], device=images.device).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels / 255 - mean) / deviation


def read_dinov2(published: str, path: Path) -> dict[str, Tensor]:
    """The state dictionary of `DinoV2` from a file as its authors or timm give it away.

    Raises UserError if the file is missing, holds more than tensors, or those of another network.
    """
    with laid_out():
        vit = timm.create_model(PUBLISHED[published], num_classes=0)  # at the size that it was published for
    load_published(vit, published, path)
    tensors = {f"vit.{name}": tensor for name, tensor in vit.state_dict().items()}
    return tensors | {"vit.pos_embed": resample(tensors["vit.pos_embed"])}


def resample(positions: Tensor) -> Tensor:
    """Position embeddings (1, 1 + side², D), the class token's first, at the 16×16 that an image has here.

    Bicubic as in the authors' code, whose images of 224 pixels are a little larger for it than 16 patches.
    """
    side = round((positions.shape[1] - 1) ** 0.5)
    square = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    there = F.interpolate(square, scale_factor=(GRID + OFFSET) / side, mode="bicubic")
    return torch.cat([positions[:, :1], there.flatten(2).transpose(1, 2)], dim=1)
