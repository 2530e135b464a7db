"""The Fréchet distance of two feature sets seen as Gaussians, the formula behind both FID and sFID."""

import warnings

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from selftrans.evaluation.checks import require_same_width
from selftrans.evaluation.moments import Moments

ROUNDING = torch.finfo(torch.float64).eps


def frechet_distance(a: Moments, b: Moments) -> float:
    """|μa - μb|² + tr Sa + tr Sb - 2 tr (Sa Sb)^½, the squared distance of N(μa, Sa) and N(μb, Sb).

    Dowson and Landau (1982); FID is this of pooled features (Heusel et al., 2017), sFID of spatial ones
    (Nash et al., 2021). Exact to rounding for singular covariances too, where the usual square root of the
    product is not. Not clipped: equal sets may give -1e-15.

    Warns about a set with fewer rows than dimensions (its distance is biased upwards) and about one
    without variance. Raises ValueError if the dimensions differ or a covariance has negative eigenvalues
    beyond rounding.
    """
    require_same_width(a.mean, b.mean, "the two feature sets")
    for moments in (a, b):
        _warn_if_weak(moments)
    variances = a.covariance.diagonal() + b.covariance.diagonal()  # trace() sums one by one, which rounds more
    apart = ((a.mean - b.mean).square().sum() + variances.sum()).item()
    distance = apart - 2 * _trace_of_root(a, b, tolerance=1e-10 * apart)
    if distance < -1e-6 * apart:
        raise ValueError(
            f"the Fréchet distance came out as {distance:.3g}: a covariance has negative eigenvalues, "
            "so it is damaged or not a covariance"
        )
    return distance


def _trace_of_root(a: Moments, b: Moments, tolerance: float) -> float:
    """tr (Sa Sb)^½, the sum of the roots of the eigenvalues of Sa Sb.

    The eigenvalues themselves are quick to get, but with a rounding of about 1e-16 |Sa| |Sb|, of which the root
    of a small one keeps a large part. Where that could exceed ``tolerance``, as with any singular covariance,
    the sum is that of the singular values of Raᵀ Rb with Sa = Ra Raᵀ and Sb = Rb Rbᵀ, which are the roots.
    """
    values = _eigenvalues_of_product(a.covariance, b.covariance)
    if values is not None and values.min() > 0:
        roots = np.sqrt(values)
        rounding = ROUNDING * (a.covariance.norm() * b.covariance.norm()).item()
        if (rounding / (2 * roots)).sum() < tolerance:
            return roots.sum().item()
    return torch.linalg.svdvals(a.factor.T @ b.factor).sum().item()


def _eigenvalues_of_product(a: Tensor, b: Tensor) -> np.ndarray | None:
    """Eigenvalues (D,) of the product of two covariances; None if Cholesky finds the first one singular.

    Samples come first and are sometimes fewer than a reference, so that this ends early.
    """
    try:  # the default driver, "gvd", gives the same values in almost twice the time
        return scipy.linalg.eigh(b.numpy(), a.numpy(), type=2, eigvals_only=True, check_finite=False, driver="gv")
    except np.linalg.LinAlgError:
        return None


def _warn_if_weak(moments: Moments) -> None:
    rows, dimensions = moments.count, len(moments.mean)
    if moments.covariance.trace() <= ROUNDING * moments.mean.square().sum():
        what = "the features" if rows is None else f"all {rows} rows of features"
        warnings.warn(f"zero variance: {what} are the same", stacklevel=3)
    elif rows is not None and rows <= dimensions:
        warnings.warn(
            f"{rows} rows for {dimensions} dimensions: the Fréchet distance is biased upwards, "
            "compare it at equal numbers of samples only",
            stacklevel=3,
        )
