"""Precision and recall: which samples lie among the references, which references among the samples."""

import hashlib
import math
import warnings

import torch
from torch import Tensor

from selftrans.evaluation.checks import require_neighbours, require_rows, require_same_width
from selftrans.evaluation.distances import in_one_frame
from selftrans.evaluation.neighbours import covered, squared_radii
from selftrans.progress import progress_bar


def precision_recall(reference: Tensor, samples: Tensor, k: int = 3, chunk: int = 2048) -> tuple[float, float]:
    """(precision, recall) of ``samples`` (N, D) against ``reference`` (M, D), each in [0, 1].

    Kynkäänniemi et al. (2019), Eq. (1) and (2). Each point of a set carries a ball that just reaches its
    k-th nearest neighbour in that set. Precision is the share of samples inside at least one ball of a
    reference, recall the share of references inside at least one ball of a sample; a ball's surface belongs
    to it. Both depend on N and M, so compare them at equal numbers only.

    Exact, in float64, in blocks of ``chunk`` x ``chunk`` distances, which bounds the memory and changes
    nothing else. Warns about balls of radius 0 (points repeated more than k times). Raises ValueError if a
    set has fewer than k + 1 rows, a row that is not finite, or another dimension than the other set.
    """
    for features, what in ((reference, "reference features"), (samples, "sample features")):
        require_rows(features, what)
        require_neighbours(features, what, k)
    require_same_width(reference, samples, "reference and sample features")
    (reference, reference_of), (samples, sample_of) = (_thinned(_shuffled(x), k + 1) for x in (reference, samples))
    real, made = in_one_frame(reference, samples)
    parts = [math.ceil(len(points) / chunk) for points in (real, made)]
    blocks = parts[0] * parts[1] + sum(n * (n + 1) // 2 for n in parts)
    with progress_bar(blocks, "precision and recall", "block") as bar:
        reference_radii, sample_radii = (squared_radii(points, k, chunk, bar.update) for points in (real, made))
        _warn_if_zero(reference_radii[reference_of], "references", k)
        _warn_if_zero(sample_radii[sample_of], "samples", k)
        inside = covered(real, reference_radii, made, sample_radii, chunk, bar.update)
    reference_inside, sample_inside = inside
    return sample_inside[sample_of].double().mean().item(), reference_inside[reference_of].double().mean().item()


def _shuffled(features: Tensor) -> Tensor:
    """In another order, since files are often sorted by class, which would make the search for neighbours slow."""
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(0))]


def _thinned(features: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """At most ``copies`` of each row, and for every row (N,) the place there of one like it.

    More would not change which distance is the ``copies``-th smallest, but each would be looked at.
    """
    kept, places = [], []
    found: dict[bytes, list[int]] = {}  # where copies of a row went
    for row, values in enumerate(features.contiguous().numpy()):
        like = found.setdefault(hashlib.blake2b(values, digest_size=16).digest(), [])
        if len(like) < copies:
            like.append(len(kept))
            kept.append(row)
        places.append(like[-1])
    return features[kept] if len(kept) < len(features) else features, torch.tensor(places)


def _warn_if_zero(radii: Tensor, what: str, k: int) -> None:
    share = (radii == 0).double().mean().item()
    if share > 0:
        warnings.warn(
            f"{share:.1%} of the {what} occur more than {k} times, so their balls have radius 0", stacklevel=3
        )
