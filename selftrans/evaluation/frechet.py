"""The Fréchet distance of two feature sets seen as Gaussians, the formula behind both FID and sFID."""

import math
import warnings

import numpy as np
import scipy.linalg
import torch

from selftrans.evaluation.checks import require_same_width
from selftrans.evaluation.moments import Moments
from selftrans.evaluation.roots import cholesky, root

ROUNDING = torch.finfo(torch.float64).eps
TOLERANCE = 1e-8  # of |μa - μb|² + tr Sa + tr Sb
LEADING, POWERS = 32, 2  # vectors that look for the largest singular values, and how often they are multiplied
PANEL = 256  # columns


def frechet_distance(a: Moments, b: Moments) -> float:
    """|μa - μb|² + tr Sa + tr Sb - 2 tr (Sa Sb)^½, the squared distance of N(μa, Sa) and N(μb, Sb).

    Dowson and Landau (1982); FID is this of pooled features (Heusel et al., 2017), sFID of spatial ones
    (Nash et al., 2021). Right to 1e-8 of |μa - μb|² + tr Sa + tr Sb, and mostly to rounding, for singular covariances
    too, where the usual square root of the product is not; to 1e-6 where one spectrum falls below a set's rounding,
    1e-12 of the largest variance, without being 0, and the other does not. Not clipped: equal sets may give -1e-10.

    Warns about a set with fewer rows than dimensions (its distance is biased upwards) and about one
    without variance. Raises ValueError if the dimensions differ or a covariance has negative eigenvalues
    beyond rounding.
    """
    require_same_width(a.mean, b.mean, "the two feature sets")
    for moments in (a, b):
        _warn_if_weak(moments)
    variances = a.covariance.diagonal() + b.covariance.diagonal()  # trace() sums one by one, which rounds more
    apart = ((a.mean - b.mean).square().sum() + variances.sum()).item()
    distance = apart - 2 * _trace_of_root(a.covariance.numpy(), b.covariance.numpy(), TOLERANCE / 2 * apart)
    if distance < -1e-6 * apart:
        raise ValueError(
            f"the Fréchet distance came out as {distance:.3g}: a covariance has negative eigenvalues, "
            "so it is damaged or not a covariance"
        )
    return distance


def _trace_of_root(a: np.ndarray, b: np.ndarray, tolerance: float) -> float:
    """tr (Sa Sb)^½ of two covariances (D, D), to within ``tolerance``.

    It is the sum of the singular values of M = Raᵀ Rb, where Sa = Ra Raᵀ and Sb = Rb Rbᵀ. The eigenvalues of M Mᵀ,
    their squares, take a quarter of an SVD's time, but have a rounding of about 1e-16 |M Mᵀ|, of which the root of a
    small one keeps a large part. So the largest singular values, those that have been found exactly after a few
    products, are taken out of M before it is squared: what they leave is as small as its rounding. Where even that
    could exceed the tolerance, what is left has its SVD.
    """
    shared = np.flatnonzero((a.diagonal() > 0) & (b.diagonal() > 0))  # a unit dead in one set adds but zeros
    if len(shared) < len(a):
        a, b = a[np.ix_(shared, shared)], b[np.ix_(shared, shared)]
    leading, rest, error = _take_out_leading(_product_of_roots(a, b), tolerance / 4)
    if not rest.size:
        return 0.0
    squares = scipy.linalg.blas.dsyrk(1.0, rest, lower=1)
    values = scipy.linalg.eigh(
        squares, lower=True, eigvals_only=True, driver="ev", overwrite_a=True, check_finite=False
    )
    values = values[len(leading) :]  # as many are the zeros that were left where the others stood
    error += _error_of_roots(values)
    roots = np.sqrt(values.clip(0)) if error < tolerance else scipy.linalg.svdvals(rest, check_finite=False)
    return float(leading.sum() + roots.sum())


def _error_of_roots(values: np.ndarray) -> float:
    """How far the sum of the roots of eigenvalues (n,) of a positive matrix can be off.

    An eigenvalue's rounding δ, at most about eps times the Frobenius norm (measured: 0.6 times that), changes its
    root r by at most δ / 2r, and never by more than √δ.
    """
    rounding = ROUNDING * np.linalg.norm(values).item()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.fmin(rounding / (2 * np.sqrt(values.clip(0))), math.sqrt(rounding)).sum().item()


def _take_out_leading(matrix: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The largest singular values (k,) of an (m, n) matrix M, and M without them; together they have M's nuclear norm.

    The last number is how far they have not, at most ``tolerance``. With singular vectors Q to the left, that are
    exact up to the residual R = M Mᵀ Q - Q diag(s²), M splits into Q Qᵀ M and C = M - Q Qᵀ M. Their norms' sum
    exceeds that of M by at most 2 |C P|, where P projects on the rows of Qᵀ M, and |C P| ≤ √k |C P|_F, which is
    the root of k Σ |R_i|² / s_i². So k is as large as the tolerance allows, 0 where nothing stands out.
    """
    draws = np.random.default_rng(0)
    q = matrix @ draws.standard_normal((matrix.shape[1], min(LEADING, len(matrix))))
    for _ in range(POWERS):
        q = np.linalg.qr(q)[0]
        q = matrix @ (matrix.T @ q)
    q = np.linalg.qr(q)[0]
    right = matrix.T @ q
    squares, turn = (x[..., ::-1] for x in np.linalg.eigh(right.T @ right))
    squares = squares.clip(np.finfo(float).tiny)
    residuals = matrix @ (right @ turn) - (q @ turn) * squares
    errors = 2 * np.sqrt(np.arange(1, len(squares) + 1) * (np.square(residuals).sum(axis=0) / squares).cumsum())
    k = np.count_nonzero(errors <= tolerance)
    if k == 0:
        return np.empty(0), matrix, 0.0
    rest = scipy.linalg.blas.dgemm(-1.0, q @ turn[:, :k], right @ turn[:, :k], 1.0, matrix, trans_b=1, overwrite_c=1)
    return np.sqrt(squares[:k]), rest, errors[k - 1].item()


def _product_of_roots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Raᵀ Rb (rank, rank) of two covariances (D, D), or its transpose: no more rows than columns.

    Of full rank, one root is lower and the other upper triangular; so is the product, for a third of the cost.
    """
    lower = cholesky(a)
    if lower is None:
        a, b = b, a
        lower = cholesky(a)
        upper = None
    else:
        upper = cholesky(b[::-1, ::-1])
    if lower is not None and upper is not None:
        return _triangular_product(lower, upper[::-1, ::-1])
    product = root(a).T @ root(b) if lower is None else scipy.linalg.blas.dtrmm(1.0, lower, root(b), lower=1, trans_a=1)
    return np.asfortranarray(product if len(product) <= len(product.T) else product.T)


def _triangular_product(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """lowerᵀ upper (D, D), in Fortran's order."""
    product = np.zeros_like(lower)
    for start in range(0, len(lower), PANEL):
        end = start + PANEL
        panel = scipy.linalg.blas.dtrmm(1.0, lower[:end, :end], upper[:end, start:end], lower=1, trans_a=1)
        product[:end, start:end] = panel
    return product


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
