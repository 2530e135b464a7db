"""Neighbours: bounds that hold in every precision, and answers that are those of all distances in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from selftrans.evaluation.distances import Screen, in_one_frame, precisions, squared_distances
from selftrans.evaluation.neighbours import covered, squared_radii

DTYPES = [torch.bfloat16, torch.float32, torch.float64]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clouds(kind, count, width, seed):
    """Sets of points that are hard for one reason each."""
    points = normal(count, width, seed=seed)
    return {
        "normal": points,
        "positive": 0.4 + 0.1 * points.relu(),
        "far from the origin": 1e4 + points,
        "of very different lengths": points * torch.logspace(-6, 3, count).double()[:, None],
        "in two tight clusters": points * 1e-4 + torch.tensor([[0.0], [1.0]])[torch.arange(count) % 2],
        "sorted": points.sort(dim=0).values,
        "huge": 1e25 * points,
        "tiny": 1e-25 * points,
        "on a grid": points.mul(2).round(),
        "repeated": points[torch.arange(count) % max(1, count // 4)],
        "all the same": torch.ones(count, width).double(),
        "mostly zeros": points * (points > 1.5),
    }[kind]


KINDS = [
    *("normal", "positive", "far from the origin", "of very different lengths", "in two tight clusters", "sorted"),
    *("huge", "tiny", "on a grid", "repeated", "all the same", "mostly zeros"),
]


def all_squared_distances(a, b):
    return torch.from_numpy(cdist(a.double().numpy(), b.double().numpy(), "sqeuclidean"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [3, 600])
def test_bounds_hold(dtype, kind, width):
    a, b = clouds(kind, 60, width, seed=1).float(), clouds(kind, 40, width, seed=2).float()
    frame = in_one_frame(a, b)
    screen = Screen(*frame, dtype)
    rows, columns = slice(5, 60), slice(0, 40)
    lower = screen.lower(rows, columns)
    pairs = screen.near(rows, columns, *(torch.full((len(points),), torch.inf) for points in (a, b)))
    true = all_squared_distances(a, b)[rows, columns] / frame[0].scale ** 2
    rounding = 1e-13 * true.max()
    assert len(pairs.i) == true.numel()
    assert (lower.double() <= true + rounding).all()
    assert (pairs.upper.reshape(true.shape) >= true - rounding).all()


@pytest.mark.parametrize("kind", ["normal", "positive"])
def test_bounds_are_narrow(kind):
    a, b = clouds(kind, 60, 2048, seed=1), clouds(kind, 40, 2048, seed=2)
    for dtype, width in zip(DTYPES, (0.02, 1e-3, 1e-11), strict=True):
        pairs = Screen(*in_one_frame(a, b), dtype).near(
            slice(0, 60), slice(0, 40), *(torch.full((len(points),), torch.inf) for points in (a, b))
        )
        assert ((pairs.upper - pairs.lower) / pairs.upper).max() < width


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


def test_distances_are_exact_and_the_same_whichever_way_round():
    a, b = normal(50, 300).float(), normal(40, 300, seed=1).float()
    b[7] = a[11]
    i, j = torch.randint(50, (500,)), torch.randint(40, (500,))
    i[0], j[0] = 11, 7
    found = squared_distances(a, i, b, j)
    assert found[0] == 0
    assert torch.equal(found, squared_distances(b, j, a, i))
    torch.testing.assert_close(found, all_squared_distances(a, b)[i, j], rtol=1e-13, atol=0)


def test_precisions_end_with_the_one_that_tells_all_apart():
    assert precisions()[-2:] == (torch.float32, torch.float64)
    assert set(precisions()) <= set(DTYPES)
