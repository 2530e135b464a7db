"""Precision and recall: sets whose answer is known, invariances, and second opinions."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from selftrans.evaluation import precision_recall as module
from selftrans.evaluation.precision_recall import precision_recall


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def restated(reference, samples, k=3):
    """The definition, with all distances at once and without the expanded form."""
    reference, samples = reference.double().numpy(), samples.double().numpy()
    reference_radii = np.sort(cdist(reference, reference), axis=1)[:, k]
    sample_radii = np.sort(cdist(samples, samples), axis=1)[:, k]
    distances = cdist(reference, samples)
    precision = (distances <= reference_radii[:, None]).any(axis=0).mean()
    recall = (distances <= sample_radii).any(axis=1).mean()
    return precision, recall


@settings(deadline=None, max_examples=60)
@given(
    m=st.integers(6, 40),
    n=st.integers(6, 40),
    k=st.integers(1, 5),
    chunk=st.integers(1, 50),
    seed=st.integers(0, 999),
)
def test_equal_to_the_definition_at_any_chunk_size(m, n, k, chunk, seed):
    reference, samples = normal(m, 4, seed=seed), 0.3 + normal(n, 4, seed=seed + 1)
    assert precision_recall(reference, samples, k, chunk) == pytest.approx(restated(reference, samples, k), abs=1e-15)


@settings(deadline=None, max_examples=40)
@given(chunk=st.integers(1, 50), seed=st.integers(0, 999))
@pytest.mark.filterwarnings("ignore:.*radius 0")
def test_ties_and_copies_at_any_chunk_size(chunk, seed):
    """On a small grid most distances tie, many points coincide, and all sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randint(-2, 3, (40, 3), generator=generator)
    samples = torch.randint(-1, 5, (30, 3), generator=generator)
    assert precision_recall(reference, samples, 3, chunk) == pytest.approx(restated(reference, samples), abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_torch_fidelity_agrees(dtype):
    reference, samples = normal(400, 32).to(dtype), (0.9 * normal(700, 32, seed=1) + 0.2).to(dtype)
    for full in (True, False):
        second = prc_features_to_metric(
            samples, reference, prc_neighborhood=3, prc_batch_size=97, save_cpu_ram=not full, verbose=False
        )
        precision, recall = precision_recall(reference, samples, chunk=150)
        assert 0.1 < precision < 0.95
        assert 0.1 < recall < 0.95
        assert precision == pytest.approx(second[KEY_METRIC_PRECISION], abs=1e-6)
        assert recall == pytest.approx(second[KEY_METRIC_RECALL], abs=1e-6)


def test_large_features_of_many_dimensions():
    """Like pooled Inception features: non-negative, with norms far above float16's largest number."""
    reference, samples = 30 * normal(120, 2048).relu(), 29 * normal(150, 2048, seed=1).relu()
    assert reference.square().sum(dim=1).min() > 65504
    assert precision_recall(reference, samples, chunk=64) == pytest.approx(restated(reference, samples), abs=1e-15)


def test_points_on_a_line():
    """Counted by hand, k = 2."""
    reference = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # balls [-2, 2], [0, 2], [0, 4], [1, 19]
    samples = torch.tensor([[-2.5], [1.5], [10.5], [19.5]])  # two of them inside; radii 13, 9, 9, 18
    assert precision_recall(reference, samples, k=2) == (0.5, 1.0)


def test_the_surface_of_a_ball_belongs_to_it():
    reference = torch.tensor([[0.0], [1.0]])
    on_surface = torch.tensor([[2.0], [50.0]])
    beyond = torch.tensor([[2.0001], [50.0]])
    assert precision_recall(reference, on_surface, k=1)[0] == 0.5
    assert precision_recall(reference, beyond, k=1)[0] == 0.0


def test_identical_sets():
    features = normal(200, 16)
    assert precision_recall(features, features.clone()) == (1, 1)


def test_sets_far_apart():
    assert precision_recall(normal(100, 8), normal(100, 8, seed=1) + 1000) == (0, 0)


def test_collapsed_generator_is_precise_and_forgets():
    """All samples close to one reference: they look real, and show next to nothing of what is real."""
    reference = normal(400, 8)
    samples = reference[7] + 1e-3 * normal(400, 8, seed=1)
    precision, recall = precision_recall(reference, samples)
    assert precision == 1
    assert recall == 1 / 400


def test_generator_with_invented_samples_is_imprecise_and_complete():
    reference = normal(400, 8)
    samples = torch.cat([reference + 1e-3 * normal(400, 8, seed=1), 1000 + normal(400, 8, seed=2)])
    assert precision_recall(reference, samples) == (0.5, 1)


def test_swapping_the_sets_swaps_the_numbers():
    a, b = normal(150, 6), normal(200, 6, seed=1) * 1.3
    precision, recall = precision_recall(a, b)
    assert precision_recall(b, a) == (recall, precision)
    assert precision != recall


def test_row_order_and_common_motions_do_not_matter():
    a, b = normal(150, 6), normal(200, 6, seed=1) * 1.3
    expected = precision_recall(a, b)
    rotation = torch.linalg.qr(normal(6, 6, seed=2)).Q
    assert precision_recall(a.flip(0), b.roll(31, dims=0), chunk=64) == expected
    assert precision_recall(a @ rotation, b @ rotation) == expected
    assert precision_recall(a + 50, b + 50) == expected
    assert precision_recall(7 * a, 7 * b) == expected


def test_copies_of_a_point_are_at_distance_zero():
    """Four copies of each sample: radius 0, so recall counts only references that are equal to a sample.

    The features are not whole numbers, and the expanded form |u|² + |v|² - 2uv alone would leave rounding.
    """
    reference = 100 + normal(60, 512)
    samples = torch.cat([100 + normal(20, 512, seed=1), reference[:5]]).repeat(4, 1)
    with pytest.warns(UserWarning, match=r"100\.0% of the samples occur more than 3 times"):
        precision, recall = precision_recall(reference, samples, chunk=17)
    assert recall == 5 / 60
    assert precision >= 5 / 25


def test_of_a_collapsed_generators_samples_few_are_looked_at(monkeypatch):
    """Half are one image amid the others; every pair with it would matter, and of the whole set's the square would."""
    looked_at, search = [], module.squared_radii
    monkeypatch.setattr(
        module, "squared_radii", lambda points, *rest: looked_at.append(len(points)) or search(points, *rest)
    )
    reference, samples = normal(80, 8), normal(60, 8, seed=1)
    samples[::2] = 0
    with pytest.warns(UserWarning, match=r"50\.0% of the samples occur more than 3 times"):
        found = precision_recall(reference, samples)
    assert found == pytest.approx(restated(reference, samples), abs=1e-15)
    assert looked_at == [80, 34]


def test_the_share_of_repeated_references_is_told():
    reference = torch.cat([normal(30, 4), torch.ones(10, 4)])
    with pytest.warns(UserWarning, match=r"25\.0% of the references occur more than 3 times"):
        precision_recall(reference, normal(40, 4, seed=1))


def test_both_sets_constant():
    with pytest.warns(UserWarning, match="radius 0"):
        assert precision_recall(torch.zeros(9, 4), torch.ones(9, 4)) == (0, 0)


def test_no_warning_without_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        precision, _ = precision_recall(normal(50, 4).repeat(3, 1), normal(50, 4, seed=1))
    assert 0 < precision < 1


@pytest.mark.parametrize("few", [1, 3])
def test_too_few_rows(few):
    with pytest.raises(ValueError, match=rf"sample features: .* needs at least k\+1 = 4 rows, got {few}"):
        precision_recall(normal(10, 3), normal(few, 3))
    with pytest.raises(ValueError, match=rf"reference features: .* needs at least k\+1 = 4 rows, got {few}"):
        precision_recall(normal(few, 3), normal(10, 3))


def test_no_rows():
    with pytest.raises(ValueError, match="sample features: at least 1 rows are needed, got 0"):
        precision_recall(normal(10, 3), normal(0, 3))


def test_just_enough_rows():
    assert precision_recall(normal(4, 3), normal(4, 3)) == (1, 1)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_is_an_error_and_not_a_plausible_number(bad):
    samples = normal(50, 3)
    samples[[12, 40], 1] = bad
    with pytest.raises(ValueError, match="sample features: row 12"):
        precision_recall(normal(50, 3), samples)
    with pytest.raises(ValueError, match="reference features: row 12"):
        precision_recall(samples, normal(50, 3))


def test_different_dimensions():
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(12, 4\)"):
        precision_recall(normal(10, 3), normal(12, 4))


def test_pinned():
    """A case that needs no random numbers."""
    grid = torch.arange(1200, dtype=torch.float64).reshape(200, 6)
    reference, samples = torch.sin(grid**1.5), 0.3 + torch.sin(grid**1.7) * torch.linspace(0.5, 1.5, 6)
    assert precision_recall(reference, samples) == pytest.approx(restated(reference, samples), abs=1e-15)
    assert precision_recall(reference, samples) == pytest.approx((0.335, 0.435), abs=1e-15)
