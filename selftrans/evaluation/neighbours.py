"""Nearest neighbours and who lies in whose ball, exactly, at the price of rough distances.

Nearly all pairs are too far apart to matter, which bounds in a low precision show. What they leave open is settled
by the distances themselves, so that the answers are those of float64 alone. Memory is bounded by blocks of pairs
and by ``MANY``.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from selftrans.evaluation.distances import MARGIN, Pairs, Points, Screen, precisions, squared_distances

MANY = 2**23  # pairs, of 32 bytes, that are kept before the nearest of each point are settled
FEW = 1 / 32  # share of a block's pairs that are cheaper to settle than to bound in a higher precision


def squared_radii(points: Points, k: int, chunk: int, done: Callable[[], object]) -> Tensor:
    """Squared distance (N,) float64 of each of N points to its k-th nearest neighbour among them.

    The point itself is the nearest, at 0, so this is the (k + 1)-th smallest distance of its row. What a point
    finds in its own chunk limits where else to look, so the points should be in random order. Bounds of ``chunk``²
    pairs are in memory at a time, and up to ``MANY`` pairs near enough to matter; after each block, ``done()`` is
    called.
    """
    slices = _slices(len(points), chunk, at_least=k + 1)
    reach, kept = torch.empty(len(points), dtype=torch.float64), []
    for own in slices:
        reach[own], pairs = _nearest_within(points, own, k + 1)
        kept.append(pairs)
        done()
    for n, rows in enumerate(slices):
        for columns in slices[:n]:
            pairs = _near_either(points, reach, rows, columns)
            kept += [half[half.lower <= (1 + MARGIN) * reach[half.i]] for half in (pairs, pairs.swapped)]
            if sum(map(len, kept)) > MANY:
                kept = [_nearest(points, Pairs.joined(kept), k + 1)]
            done()
    return _settle(points, Pairs.joined(kept), k + 1)


def covered(
    a: Points, radii_a: Tensor, b: Points, radii_b: Tensor, chunk: int, done: Callable[[], object]
) -> tuple[Tensor, Tensor]:
    """Which of the points ``a`` lie in a ball of ``b``, and which of ``b`` in a ball of ``a``: (N,), (M,) bool.

    Each point carries a ball of its squared radius, ``radii_a`` (N,) or ``radii_b`` (M,); the surface belongs to it.
    After each block of ``chunk``² pairs, ``done()`` is called.
    """
    a_inside, b_inside = (torch.zeros(len(points), dtype=torch.bool) for points in (a, b))
    to_a, to_b = (radii / a.scale**2 for radii in (radii_a, radii_b))

    def doubtful(rows: slice, columns: slice) -> Pairs:
        """Pairs on which it depends whether a point is inside, after all that surely are."""
        for dtype in precisions():
            pairs = Screen(a, b, dtype).near(rows, columns, to_a, to_b)
            b_inside[pairs.j[pairs.upper <= (1 - MARGIN) * to_a[pairs.i]]] = True
            a_inside[pairs.i[pairs.upper <= (1 - MARGIN) * to_b[pairs.j]]] = True
            open_b = ~b_inside[pairs.j] & (pairs.lower <= (1 + MARGIN) * to_a[pairs.i])
            open_a = ~a_inside[pairs.i] & (pairs.lower <= (1 + MARGIN) * to_b[pairs.j])
            pairs = pairs[open_a | open_b]
            if _are_few(len(pairs.i), rows, columns):
                break
        return pairs

    for rows in _slices(len(a), chunk):
        for columns in _slices(len(b), chunk):
            pairs = doubtful(rows, columns)
            distances = squared_distances(a.exact, pairs.i, b.exact, pairs.j)
            b_inside[pairs.j[distances <= radii_a[pairs.i]]] = True
            a_inside[pairs.i[distances <= radii_b[pairs.j]]] = True
            done()
    return a_inside, b_inside


def _nearest_within(points: Points, own: slice, rank: int) -> tuple[Tensor, Pairs]:
    """How far the ``rank``-th of the points ``own`` is from each of them, at most, and the pairs as near as that.

    Nothing is nearer than 0, so that points which are repeated so often get no pairs.
    """
    reach = torch.full((own.stop - own.start,), torch.inf, dtype=torch.float64)
    for dtype in precisions():
        screen = Screen(points, points, dtype)
        bounds = screen.lower(own, own)
        lower, found = bounds.topk(rank, dim=1, largest=False)
        rows, found = torch.arange(own.start, own.stop)[:, None].expand_as(found), found + own.start
        upper = (lower + screen.width(rows, found)).amax(dim=1)
        alike = lower[:, -1] <= 0
        exact = squared_distances(points.exact, rows[alike].flatten(), points.exact, found[alike].flatten())
        upper[alike] = exact.view(-1, rank).amax(dim=1) / points.scale**2
        reach = torch.minimum(reach, upper)
        reach[reach == 0] = -torch.inf
        chosen = bounds <= ((1 + MARGIN) * reach[:, None]).to(screen.sums)
        if _are_few(int(chosen.sum()), own, own):
            break
    return reach, screen.pairs(bounds, chosen, own, own)


def _near_either(points: Points, reach: Tensor, rows: slice, columns: slice) -> Pairs:
    for dtype in precisions():
        pairs = Screen(points, points, dtype).near(rows, columns, reach, reach)
        if _are_few(len(pairs.i), rows, columns):
            break
    return pairs


def _possible(pairs: Pairs, count: int, rank: int) -> Pairs:
    """Without the pairs that ``rank`` others of their point are surely nearer than."""
    return pairs[pairs.lower <= _rank_smallest(pairs.upper, pairs.i, count, rank)[pairs.i]]


def _nearest(points: Points, pairs: Pairs, rank: int) -> Pairs:
    """The ``rank`` nearest of each point's pairs; all that may be, if bounds leave few enough open."""
    pairs = _possible(pairs, len(points), rank)
    if len(pairs) <= MANY / 2:
        return pairs
    distances = squared_distances(points.exact, pairs.i, points.exact, pairs.j) / points.scale**2
    order = _by_owner(distances, pairs.i)
    owned = torch.bincount(pairs.i, minlength=len(points))
    place = torch.arange(len(order)) - (owned.cumsum(dim=0) - owned)[pairs.i[order]]
    chosen = order[place < rank]
    return Pairs(pairs.i[chosen], pairs.j[chosen], distances[chosen], distances[chosen])


def _settle(points: Points, pairs: Pairs, rank: int) -> Tensor:
    """The ``rank``-th smallest squared distance (N,) among each point's pairs, 0 for those without any."""
    count = len(points)
    pairs = _possible(pairs, count, rank)
    nearer = pairs.upper < _rank_smallest(pairs.lower, pairs.i, count, rank)[pairs.i]  # they count, but are not it
    distances = torch.full_like(pairs.lower, -torch.inf)
    open_pairs = pairs[~nearer]
    distances[~nearer] = squared_distances(points.exact, open_pairs.i, points.exact, open_pairs.j)
    return _rank_smallest(distances, pairs.i, count, rank)


def _rank_smallest(values: Tensor, owners: Tensor, count: int, rank: int) -> Tensor:
    """The ``rank``-th smallest (count,) of the ``values`` (P,) of each owner (P,), 0 for those without any."""
    order = _by_owner(values, owners)
    owned = torch.bincount(owners, minlength=count)
    found = torch.zeros(count, dtype=values.dtype)
    found[owned > 0] = values[order[(owned.cumsum(dim=0) - owned + rank - 1)[owned > 0]]]
    return found


def _by_owner(values: Tensor, owners: Tensor) -> Tensor:
    """The order (P,) of owners, and of values where the owner is the same."""
    order = values.argsort()
    return order[owners[order].argsort(stable=True)]


def _are_few(pairs: int, rows: slice, columns: slice) -> bool:
    return pairs <= FEW * (rows.stop - rows.start) * (columns.stop - columns.start)


def _slices(count: int, chunk: int, at_least: int = 1) -> list[slice]:
    """``count`` in slices of ``chunk``; the last may be shorter, or longer so as not to be below ``at_least``."""
    starts = range(0, max(count - at_least, 0) + 1, max(chunk, at_least))
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]
