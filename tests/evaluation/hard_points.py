"""Sets of points that are hard for one reason each, and all their distances by another library."""

import torch
from scipy.spatial.distance import cdist


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
