"""Moments: the same as numpy's in one piece, however the rows arrive."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrans.evaluation.moments import MomentAccumulator, Moments


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def accumulate(batches):
    accumulator = MomentAccumulator()
    for batch in batches:
        accumulator.update(batch)
    return accumulator


def assert_same(a, b, tolerance=1e-12):
    assert a.count == b.count
    torch.testing.assert_close(a.mean, b.mean, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.covariance, b.covariance, rtol=tolerance, atol=tolerance)


def test_equal_to_numpy():
    features = normal(300, 7) @ normal(7, 7, seed=1) + 5
    moments = Moments.from_features(features)
    assert moments.count == 300
    np.testing.assert_allclose(moments.mean, features.numpy().mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy(), rowvar=False), rtol=1e-11, atol=1e-13)


def test_float32_features_are_summed_in_float64():
    features = normal(5000, 4).float() + 100
    assert_same(Moments.from_features(features), Moments.from_features(features.double()), 0)


def test_a_large_mean_does_not_hide_a_small_variance():
    features = normal(4000, 3) * 1e-3
    shifted = Moments.from_features(features + 1e4)
    expected = torch.cov(((features + 1e4) - 1e4).T)  # the subtraction is exact
    torch.testing.assert_close(shifted.covariance, expected, rtol=1e-8, atol=0)


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(1, 99), max_size=6), seed=st.integers(0, 2**31))
def test_batches_do_not_matter(cuts, seed):
    features = normal(100, 5, seed=seed) + torch.arange(5)
    batches = [batch for batch in features.tensor_split(sorted(cuts)) if len(batch)]
    assert_same(accumulate(batches).moments(), Moments.from_features(features))


@settings(deadline=None, max_examples=50)
@given(cut=st.integers(0, 60), seed=st.integers(0, 2**31))
def test_two_ranks_see_what_one_sees(cut, seed):
    features = normal(60, 4, seed=seed)
    features[30:] += 10  # the ranks see different halves, so their shifts differ
    first, second = (accumulate(part.split(7) if len(part) else []) for part in features.tensor_split([cut]))
    first.merge(second)
    assert_same(first.moments(), Moments.from_features(features))


@pytest.mark.parametrize("rows", [0, 1, 1100])
def test_sums_are_taken_up_to_the_last_bit(rows):
    features = normal(1500, 4) + 3
    seen = accumulate(features[:rows].split(70) if rows else [])
    again = MomentAccumulator.of_sums(seen.sums())
    totals = [accumulate([features]) for _ in range(2)]
    for total, other in zip(totals, (seen, again), strict=True):
        total.merge(other)
    assert totals[0].count == totals[1].count == 1500 + rows
    assert torch.equal(totals[0].moments().mean, totals[1].moments().mean)
    assert torch.equal(totals[0].moments().covariance, totals[1].moments().covariance)


def test_sums_alone_are_those_that_are_merged():
    """A set of one block has the moments that it has in one piece."""
    features = normal(2600, 5) - 2
    features[:, 3] = 0
    total = MomentAccumulator()
    total.merge(MomentAccumulator.of(features))
    assert torch.equal(total.moments().covariance, Moments.from_features(features).covariance)
    assert torch.equal(total.moments().mean, Moments.from_features(features).mean)


def test_one_row_at_a_time():
    features = normal(20, 3)
    assert_same(accumulate(features.split(1)).moments(), Moments.from_features(features))


@pytest.mark.parametrize("batch", [9, 700, 1024, 2500])
def test_more_rows_than_are_added_at_one_time(batch):
    features = normal(2600, 3) + 7
    accumulator = accumulate(features.split(batch))
    assert_same(accumulator.moments(), Moments.from_features(features))
    other = accumulate(features[:1300].split(batch))
    other.merge(accumulate(features[1300:].split(batch)))
    assert_same(other.moments(), accumulator.moments())


def test_moments_may_be_asked_for_before_the_end():
    features = normal(50, 3)
    accumulator = accumulate([features[:20]])
    assert_same(accumulator.moments(), Moments.from_features(features[:20]))
    accumulator.update(features[20:])
    assert_same(accumulator.moments(), Moments.from_features(features))


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(rows):
    with pytest.raises(ValueError, match=f"at least . rows.*got {rows}"):
        Moments.from_features(torch.ones(rows, 3))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_first_bad_row_is_named_across_batches(bad):
    features = normal(30, 3)
    features[17, 1] = bad
    features[23, 0] = bad
    with pytest.raises(ValueError, match="row 17 holds NaN or infinity"):
        accumulate(features.split(10))


def test_batches_of_different_width():
    accumulator = accumulate([torch.ones(4, 3)])
    with pytest.raises(ValueError, match=r"\(4, 5\) and \(3,\)"):
        accumulator.update(torch.ones(4, 5))
    with pytest.raises(ValueError, match=r"\(5,\) and \(3,\)"):
        accumulator.merge(accumulate([torch.ones(4, 5)]))


def test_images_are_not_features():
    with pytest.raises(ValueError, match=r"matrix \(N, D\), got shape \(2, 3, 8, 8\)"):
        Moments.from_features(torch.ones(2, 3, 8, 8))


@pytest.mark.parametrize(
    ("count", "mean", "covariance", "message"),
    [
        (1, torch.zeros(2), torch.eye(2), "at least 2 rows, got 1"),
        (9, torch.zeros(3), torch.eye(2), r"\(3,\) and \(2, 2\)"),
        (9, torch.zeros(2, 1), torch.eye(2), r"\(2, 1\) and \(2, 2\)"),
        (9, torch.tensor([0, torch.nan]), torch.eye(2), "the mean holds NaN"),
        (9, torch.zeros(2), torch.tensor([[1, 0], [0, torch.inf]]), "the covariance holds NaN or infinity"),
        (9, torch.zeros(2), torch.tensor([[1, 0.5], [0.4, 1]]), "not symmetric"),
        (9, torch.zeros(2), torch.diag(torch.tensor([1.0, -0.1])), "negative variance"),
    ],
)
def test_impossible_moments(count, mean, covariance, message):
    with pytest.raises(ValueError, match=message):
        Moments(count, mean.double(), covariance.double())


def test_the_number_of_rows_may_be_unknown():
    assert Moments(None, torch.zeros(2).double(), torch.eye(2).double()).count is None


def test_float32_moments_are_refused():
    with pytest.raises(ValueError, match="float64"):
        Moments(9, torch.zeros(2), torch.eye(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_covariance_that_float32_rounded_is_made_symmetric(dtype):
    exact = Moments.from_features(normal(50, 6)).covariance
    noise = 1e-7 * exact.abs().max() * normal(6, 6, seed=1)
    stored = (exact + noise).to(dtype).double()
    assert not torch.equal(stored, stored.T)
    taken = Moments(50, torch.zeros(6).double(), stored).covariance
    assert torch.equal(taken, (stored + stored.T) / 2)
    with pytest.raises(ValueError, match="not symmetric"):
        Moments(50, torch.zeros(6).double(), exact + 100 * noise)
