"""What an extractor makes of images."""

from dataclasses import dataclass

from torch import Tensor

INCEPTION = "inception-2015-12-05"  # the one extractor whose Fréchet distances are called FID and sFID


@dataclass(frozen=True, eq=False)
class Features:
    """A batch of images as an extractor sees it: pool (n, D), spatial (n, S), logits (n, K).

    Raises ValueError if the three differ in their number of rows.
    """

    pool: Tensor
    spatial: Tensor
    logits: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(tensor.shape) for tensor in (self.pool, self.spatial, self.logits)]
        if len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"pool, spatial and logits differ in rows: {shapes}")
