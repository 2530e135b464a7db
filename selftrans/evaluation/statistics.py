"""What the metrics know of a set of images, and the file that it is kept in; other suites read its moments too."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from selftrans.errors import UserError
from selftrans.evaluation.checks import require_rows, require_same_width
from selftrans.evaluation.extractors import Extractor
from selftrans.evaluation.features import INCEPTION, Features
from selftrans.evaluation.images import ImageSet, arrays_in, refuse_damage
from selftrans.evaluation.moments import MomentAccumulator, Moments
from selftrans.files import atomic_path

FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Statistics:
    """A set of images as one extractor sees it: samples, or the reference that they are compared with.

    Moments are for the Fréchet distances, ``features`` (N, D) for precision and recall, ``logits`` (N, K) for the
    Inception Score, ``labels`` (N,) are the classes that were asked for; what a file does not have is None. Moments
    may be those of a larger set than the features, as in the ADM suite (10,000 rows, moments of the whole training
    set). Of the spatial features, nothing but their moments is kept. Raises ValueError if a row is not finite or
    the features' dimension is not the moments'.
    """

    extractor: str  # name of the extractor
    extractor_sha256: str  # of its weights
    pool: Moments
    spatial: Moments | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features is not None:
            require_rows(self.features, "pool features")
            require_same_width(self.features, self.pool.mean, "pool features and their mean")

    @property
    def count(self) -> int | None:
        """Images behind it: the rows of the features, else of the moments, where the file says how many."""
        return self.pool.count if self.features is None else len(self.features)

    @classmethod
    def gather(
        cls, batches: Iterable[Features], extractor: str, extractor_sha256: str, labels: Tensor | None = None
    ) -> Self:
        """All batches together, on the CPU.

        Raises ValueError for fewer than two images, or at the first row that is not finite.
        """
        pool, logits, spatial = [], [], MomentAccumulator()
        for batch in batches:
            require_rows(batch.pool, "pool features", first_row=spatial.count)
            require_rows(batch.logits, "logits", first_row=spatial.count)
            spatial.update(batch.spatial.cpu())
            pool.append(batch.pool.cpu())
            logits.append(batch.logits.cpu())
        spatial_moments = spatial.moments()
        features = torch.cat(pool)
        moments = Moments.from_features(features)
        return cls(extractor, extractor_sha256, moments, spatial_moments, features, torch.cat(logits), labels)

    def save(self, path: Path) -> None:
        """Write an npz, without the logits; evaluators of other projects read its ``mu, sigma, mu_s, sigma_s``."""
        arrays = {"extractor": self.extractor, "extractor_sha256": self.extractor_sha256}
        for suffix, moments in {"": self.pool, "_s": self.spatial}.items():
            if moments is not None:
                arrays |= {f"mu{suffix}": moments.mean.numpy(), f"sigma{suffix}": moments.covariance.numpy()}
                if moments.count is not None:
                    arrays[f"count{suffix}"] = moments.count
        if self.features is not None:
            arrays["features"] = self.features.numpy()
        # A file object, since numpy would append .npz to a temporary name.
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of `save`.

        Raises UserError if it is missing, truncated, damaged, of another kind, or holds what cannot be statistics.
        """
        path = Path(path)
        if {"extractor", "extractor_sha256"} - arrays_in(path):
            raise UserError(f"{path}: not statistics that selftrans wrote (it does not name an extractor)")
        with refuse_damage(path), np.load(path) as file:
            arrays = dict(file)
        try:
            features = _floats(arrays, "features") if "features" in arrays else None
            names = str(arrays["extractor"]), str(arrays["extractor_sha256"])
            return cls(*names, *_moments_of(arrays), features)
        except KeyError as error:
            raise UserError(f"{path}: not statistics of images (it has no {error})") from error
        except ValueError as error:
            raise UserError(f"{path}: {error}; get it or make it again") from error


def statistics_of(path: Path, extractor: Extractor, open_images: Callable[[Path], ImageSet]) -> Statistics:
    """Statistics of whatever ``path`` names: images, or an npz of selftrans, of the ADM suite or of its kin.

    Stored moments are taken as they are, on either side, as the ADM suite does; those of a file that names no
    extractor are Inception's. Images are seen through ``extractor``. Raises UserError that names the file, also
    if its statistics were made with another extractor.
    """
    path = Path(path)
    names = arrays_in(path)
    if "extractor" in names:
        stored = Statistics.load(path)
        if (stored.extractor, stored.extractor_sha256) != (extractor.name, extractor.sha256):
            raise UserError(
                f"{path}: statistics of extractor {stored.extractor} ({stored.extractor_sha256[:12]}), to be compared "
                f"with features of {extractor.name} ({extractor.sha256[:12]}): make both with the same one"
            )
        return stored
    if "mu" in names and extractor.name != INCEPTION:
        raise UserError(
            f"{path}: mu and sigma of an extractor that it does not name, which is taken for Inception; they cannot "
            f"be compared with features of {extractor.name}"
        )
    moments = _stored_moments(path) if "mu" in names else None
    if moments and "arr_0" not in names:
        return Statistics(extractor.name, extractor.sha256, *moments)
    images = open_images(path)
    try:
        seen = Statistics.gather(extractor.extract(images), extractor.name, extractor.sha256, images.labels)
        return replace(seen, pool=moments[0], spatial=moments[1]) if moments else seen
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _stored_moments(path: Path) -> tuple[Moments, Moments | None]:
    with refuse_damage(path), np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name.startswith(("mu", "sigma", "count"))}
    try:
        return _moments_of(arrays)
    except KeyError as error:
        raise UserError(f"{path}: it has moments, but no {error}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _moments_of(arrays: dict[str, np.ndarray]) -> tuple[Moments, Moments | None]:
    """Pool and, if there are any, spatial moments, of any float type."""
    return _moments(arrays, ""), _moments(arrays, "_s") if "mu_s" in arrays else None


def _moments(arrays: dict[str, np.ndarray], suffix: str) -> Moments:
    mean, covariance = (_floats(arrays, f"{name}{suffix}").double() for name in ("mu", "sigma"))
    return Moments(_count(arrays, f"count{suffix}"), mean, covariance)


def _floats(arrays: dict[str, np.ndarray], key: str) -> Tensor:
    array = arrays[key]
    if array.size == 0 or array.dtype not in FLOATS:
        raise ValueError(f"{key} is {array.shape} {array.dtype}; expected float16, float32 or float64, not empty")
    return torch.from_numpy(array)


def _count(arrays: dict[str, np.ndarray], key: str) -> int | None:
    """None for moments of somebody who does not tell it."""
    if key not in arrays:
        return None
    array = arrays[key]
    if array.shape != () or array.dtype.kind not in "iu":
        raise ValueError(f"{key} is {array.shape} {array.dtype}; expected one integer, () int64")
    return int(array)
