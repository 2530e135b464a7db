"""KID: torch-fidelity's, checked against the estimator spelt out."""

import numpy as np
import pytest
import torch

from selftrans.evaluation.kid import kid


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def restated(x, y):
    """The unbiased estimate of the squared MMD with the kernel (xᵀy / D + 1)³, over all rows at once."""
    x, y = x.double().numpy(), y.double().numpy()
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n = len(x)
    off_diagonal = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return off_diagonal / (n * (n - 1)) - 2 * xy.mean()


def test_with_as_many_rows_as_a_subset_it_is_the_estimator():
    reference, samples = normal(1000, 12), 1.2 * normal(1000, 12, seed=1) + 0.1
    mean, deviation = kid(reference, samples, subsets=2)
    assert mean == pytest.approx(restated(samples, reference), rel=1e-3)  # torch-fidelity sums in float32
    assert deviation < 1e-5


def test_the_subsets_are_the_same_each_time():
    reference, samples = normal(1500, 6), normal(1200, 6, seed=1)
    assert kid(reference, samples, 2) == kid(reference, samples, 2)


def test_too_few_rows():
    with pytest.raises(ValueError, match="reference features for KID: at least 1000 rows are needed, got 999"):
        kid(normal(999, 6), normal(1000, 6))
    with pytest.raises(ValueError, match=r"\(1000, 6\) and \(1000, 5\)"):
        kid(normal(1000, 6), normal(1000, 5))
