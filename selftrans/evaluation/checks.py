"""What every metric asks of its input: a finite matrix with enough rows, as wide as the one beside it."""

import torch
from torch import Tensor


def require_rows(features: Tensor, what: str, at_least: int = 1, first_row: int = 0) -> None:
    """Check one set of features, an (N, D) matrix; ``what`` is its name in the message.

    A NaN must be caught here: comparisons swallow it, so that precision and recall would come out plausible.

    Raises ValueError unless ``features`` is a matrix of at least ``at_least`` finite rows, and names
    the first bad row, counted from ``first_row`` (the rows that earlier batches had).
    """
    if features.ndim != 2:
        raise ValueError(f"{what} must be a matrix (N, D), got shape {tuple(features.shape)}")
    if len(features) < at_least:
        raise ValueError(f"{what}: at least {at_least} rows are needed, got {len(features)}")
    bad = (~features.isfinite().all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(f"{what}: row {first_row + int(bad[0])} holds NaN or infinity")


def require_neighbours(features: Tensor, what: str, k: int) -> None:
    """Raises ValueError unless each of the rows of ``features`` (N, D) can have ``k`` neighbours among the others."""
    if len(features) < k + 1:
        raise ValueError(f"{what}: a k-th neighbour, k = {k}, needs at least k+1 = {k + 1} rows, got {len(features)}")


def require_same_width(a: Tensor, b: Tensor, what: str) -> None:
    """Raises ValueError, with both shapes, unless the last dimensions of ``a`` and ``b`` agree."""
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"{what} differ in dimension: {tuple(a.shape)} and {tuple(b.shape)}")


def require_covariance(mean: Tensor, covariance: Tensor) -> None:
    """Raises ValueError unless the two are finite float64 of shapes (D,) and (D, D), the second one
    symmetric with no negative variance, up to what float32 and float64 would round of its largest entry."""
    width = mean.numel()
    if mean.shape != (width,) or covariance.shape != (width, width):
        raise ValueError(
            f"mean and covariance must have shapes (D,) and (D, D), got {tuple(mean.shape)} "
            f"and {tuple(covariance.shape)}"
        )
    for name, tensor in {"mean": mean, "covariance": covariance}.items():
        if tensor.dtype != torch.float64:
            raise ValueError(f"the {name} must be float64, got {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"the {name} holds NaN or infinity")
    largest = covariance.abs().max()
    if (covariance - covariance.T).abs().max() > 1e-6 * largest:  # what sums in float32 leave is no damage
        raise ValueError("the covariance is not symmetric")
    if covariance.diagonal().min() < -1e-8 * largest:
        raise ValueError("the covariance has a negative variance")
