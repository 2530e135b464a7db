"""Neighbours: answers that are those of all distances in float64, for sets that are hard for one reason each."""

import pytest
import torch
from evaluation.hard_points import KINDS, all_squared_distances, clouds
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrans.evaluation import neighbours
from selftrans.evaluation.distances import in_one_frame, squared_distances
from selftrans.evaluation.neighbours import covered, squared_radii


@settings(deadline=None, max_examples=80)
@given(
    kind=st.sampled_from(KINDS),
    counts=st.tuples(st.integers(6, 60), st.integers(6, 60)),
    width=st.sampled_from([1, 3, 40]),
    k=st.integers(1, 5),
    chunk=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_answers_are_those_of_float64(kind, counts, width, k, chunk, seed):
    a, b = (clouds(kind, count, width, seed + n).float() for n, count in enumerate(counts))
    blocks = []
    frame = in_one_frame(a, b)
    radii = [squared_radii(points, k, chunk, lambda: blocks.append(1)) for points in frame]
    own = [all_squared_distances(x, x) for x in (a, b)]
    for found, distances in zip(radii, own, strict=True):
        expected = distances.sort(dim=1).values[:, k]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    # Compared with the radii that were found, so that rounding in the last digit is not what is tested.
    a_inside, b_inside = covered(frame[0], radii[0], frame[1], radii[1], chunk, lambda: blocks.append(1))
    every = torch.cartesian_prod(torch.arange(len(a)), torch.arange(len(b)))
    distances = squared_distances(a, every[:, 0], b, every[:, 1]).view(len(a), len(b))
    assert torch.equal(b_inside, (distances <= radii[0][:, None]).any(dim=0))
    assert torch.equal(a_inside, (distances <= radii[1]).any(dim=1))
    assert blocks


@pytest.mark.parametrize("kind", ["normal", "positive", "in two tight clusters", "of very different lengths", "sorted"])
def test_many_points_in_many_blocks(kind):
    """So many that a low precision settles most of them."""
    a, b = clouds(kind, 2500, 24, seed=1).float(), clouds(kind, 1500, 24, seed=2).float()
    frame = in_one_frame(a, b)
    radii = [squared_radii(points, 3, 600, lambda: None) for points in frame]
    for found, points in zip(radii, (a, b), strict=True):
        expected = all_squared_distances(points, points).sort(dim=1).values[:, 3]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    distances = all_squared_distances(a, b)
    a_inside, b_inside = covered(frame[0], radii[0], frame[1], radii[1], 600, lambda: None)
    assert torch.equal(b_inside, (distances <= radii[0][:, None]).any(dim=0))
    assert torch.equal(a_inside, (distances <= radii[1]).any(dim=1))
    assert b_inside.any()


@pytest.mark.parametrize("kind", KINDS)
def test_memory_for_few_pairs_is_enough(kind, monkeypatch):
    """Settling the nearest after nearly every block, instead of once, changes nothing."""
    points, other = (in_one_frame(x, x)[0] for x in (clouds(kind, 90, 3, seed).float() for seed in (1, 2)))
    expected = [squared_radii(x, 3, 20, lambda: None) for x in (points, other)]
    settled, settle = [], neighbours._nearest
    monkeypatch.setattr(neighbours, "MANY", 200)
    monkeypatch.setattr(neighbours, "_nearest", lambda *given: settled.append(1) or settle(*given))
    found = [squared_radii(x, 3, 20, lambda: None) for x in (points, other)]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert settled or kind in ("all the same", "repeated")  # whose distances of 0 are known without pairs
