"""Square roots of covariances: R (D, rank) with R Rᵀ = S."""

import numpy as np
import scipy.linalg

PROBES = 8  # random vectors that a root is tried on


def cholesky(covariance: np.ndarray) -> np.ndarray | None:
    """The lower triangular root (D, D) of a covariance (D, D); None if it is singular, up to `rounding_of`."""
    matrix = np.array(covariance, order="C").T  # a copy, to be overwritten; symmetric, so that LAPACK may read it so
    rounding = rounding_of(matrix)
    lower, failed = scipy.linalg.lapack.dpotrf(matrix, lower=1, overwrite_a=1)
    return None if failed or np.square(lower.diagonal()).min(initial=np.inf) <= rounding else lower


def root(covariance: np.ndarray) -> np.ndarray:
    """R (D, rank) with R Rᵀ = ``covariance`` (D, D), of any rank.

    What lies below `rounding_of` is left out: a noise of about 1e-16, whose root, 1e-8 in each of a thousand
    null directions (dead ReLUs, or fewer rows than dimensions), would show in the distance. Pivoted Cholesky is the
    quick way. Where a matrix has negative eigenvalues, as singular ones that were stored in float32, its factor does
    not give it back, which a few random vectors show; the eigenvectors then make that of the nearest covariance.
    """
    rounding = rounding_of(covariance)
    factor = _pivoted_cholesky(covariance, rounding)
    probes = np.random.default_rng(0).standard_normal((len(covariance), PROBES))
    missed = np.linalg.norm(factor @ (factor.T @ probes) - covariance @ probes) / PROBES**0.5
    if missed <= len(covariance) * rounding:  # as large as the variances that were left out can make it
        return factor
    values, vectors = np.linalg.eigh(covariance)
    kept = values > rounding
    return vectors[:, kept] * np.sqrt(values[kept])


def rounding_of(covariance: np.ndarray) -> float:
    """A variance that cannot be told from none."""
    return 2 * len(covariance) * np.finfo(np.float64).eps * np.linalg.norm(covariance).item()


def _pivoted_cholesky(matrix: np.ndarray, tolerance: float) -> np.ndarray:
    """R (D, rank) with R Rᵀ = ``matrix`` (D, D), always going on with the largest variance that is left.

    It ends where that is at most ``tolerance``. LAPACK's own, D eps / 2 of the largest variance, is exceeded by the
    rounding of some small covariances, since the elimination makes that grow.
    """
    lower, pivots, rank, _ = scipy.linalg.lapack.dpstrf(matrix, tol=tolerance, lower=1)
    factor = np.empty((len(matrix), rank))
    factor[pivots - 1] = np.tril(lower[:, :rank])
    return factor
