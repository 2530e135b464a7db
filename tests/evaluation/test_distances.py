"""Distances: bounds that hold in every precision, and exact ones that are exact."""

import pytest
import torch
from evaluation.hard_points import KINDS, all_squared_distances, clouds, normal

from selftrans.evaluation.distances import Screen, in_one_frame, precisions, squared_distances

DTYPES = [torch.bfloat16, torch.float32, torch.float64]


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
