"""What the metrics know of a set of images, and the file that it is kept in; other suites read its moments too."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from selftrans.artifacts import arrays_sha256, load_arrays, save_arrays
from selftrans.config.names import INCEPTION
from selftrans.errors import UserError
from selftrans.evaluation.checks import require_rows, require_same_width
from selftrans.evaluation.extractors import Extractor
from selftrans.evaluation.features import Features
from selftrans.evaluation.images import ImageSet, open_images
from selftrans.evaluation.moments import MomentAccumulator, Moments
from selftrans.evaluation.npz import REMEDY, arrays_in, open_zip, own_header, read_array, require_plain

KIND = "statistics"
MOMENTS_BYTES = 1 << 30  # of a stored array: a covariance of 11,000 dimensions
FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class Statistics:
    """A set of images as one extractor sees it: samples, or the reference that they are compared with.

    Moments are for the Fréchet distances, ``features`` (N, D) for precision and recall, ``logits`` (N, K) for the
    Inception Score (K = 0 of an extractor that gives none), ``labels`` (N,) are the classes that were asked for; what a
    file does not have is None. Moments may be those of a larger set than the features, as in the ADM suite (10,000
    rows, moments of the whole training set). Of the spatial features, nothing but their moments is kept. ``made_of``
    says what decides whether two of them are of the same: SHA-256 and size [H, W] of the images, SHA-256 of their
    labels, SHA-256 of the moments if they were stored by somebody who names no extractor. Raises ValueError if a row is
    not finite or the features' dimension is not the moments'.
    """

    extractor: str  # name of the extractor
    extractor_sha256: str  # of its weights
    pool: Moments
    spatial: Moments | None = None
    features: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    made_of: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.features is not None:
            require_rows(self.features, "pool features")
            require_same_width(self.features, self.pool.mean, "pool features and their mean")

    @property
    def named_extractor(self) -> str | None:
        """The extractor, if it is known; None for stored moments of somebody who names none."""
        return None if "moments" in self.made_of else self.extractor

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the images, if it is known."""
        return tuple(self.made_of["size"]) if "size" in self.made_of else None

    @property
    def count(self) -> int | None:
        """Images behind it: the rows of the features, else of the moments, where the file says how many."""
        return self.pool.count if self.features is None else len(self.features)

    @classmethod
    def gather(
        cls, batches: Iterable[Features], extractor: str, extractor_sha256: str, labels: Tensor | None = None
    ) -> Self:
        """All batches together, on the CPU; spatial features and logits of extractors that have such.

        Raises ValueError for fewer than two images, at the first row that is not finite, and for labels that are none
        of the extractor's classes (Inception's are in an order of their own, so that nothing is asked of its labels).
        """
        pool, logits, spatial, count = [], [], MomentAccumulator(), 0
        for batch in batches:
            require_rows(batch.pool, "pool features", first_row=count)
            pool.append(batch.pool.cpu())
            if batch.logits is not None:
                if labels is not None and extractor != INCEPTION:
                    _require_classes(labels, batch.logits.shape[1])
                require_rows(batch.logits, "logits", first_row=count)
                logits.append(batch.logits.cpu())
            if batch.spatial is not None:
                spatial.update(batch.spatial.cpu())
            count += len(batch.pool)
        if count < 2:
            raise ValueError(f"a covariance needs at least 2 rows, got {count}")
        features = torch.cat(pool)
        moments = Moments.from_features(features)
        return cls(
            extractor,
            extractor_sha256,
            moments,
            spatial.moments() if spatial.count else None,
            features,
            torch.cat(logits) if logits else features[:, :0],
            labels,
        )

    def save(self, path: Path, key: str | None = None) -> None:
        """Write an npz, without the logits; evaluators of other projects read its ``mu, sigma, mu_s, sigma_s``.

        ``key`` is that of the extractor in the workflow.
        """
        arrays = {}
        for suffix, moments in {"": self.pool, "_s": self.spatial}.items():
            if moments is not None:
                arrays |= {f"mu{suffix}": moments.mean.numpy(), f"sigma{suffix}": moments.covariance.numpy()}
                if moments.count is not None:
                    arrays[f"count{suffix}"] = np.array(moments.count)
        if self.features is not None:
            arrays["features"] = self.features.numpy()
        about = {"key": key, "extractor": self.extractor, "extractor_sha256": self.extractor_sha256}
        save_arrays(path, KIND, arrays, {**about, "made_of": dict(self.made_of)})

    @classmethod
    def load(cls, path: Path, expected: Mapping[str, Any] | None = None, remedy: str = REMEDY) -> Self:
        """Read a file of `save`.

        Raises UserError if it is missing, damaged, altered, of another kind, not as ``expected``, or holds what cannot
        be statistics.
        """
        path = Path(path)
        require_plain(path, remedy)
        arrays, header = load_arrays(path, KIND, expected, remedy)
        try:
            features = _floats(arrays, "features") if "features" in arrays else None
            names = header["extractor"], header["extractor_sha256"]
            return cls(*names, *_moments_of(arrays), features, made_of=header["made_of"])
        except KeyError as error:
            raise UserError(f"{path}: not statistics of images (it has no {error}); {remedy}") from error
        except ValueError as error:
            raise UserError(f"{path}: {error}; {remedy}") from error


def _require_classes(labels: Tensor, classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise ValueError(f"{len(outside)} labels such as {outside[0]} are none of the extractor's {classes} classes")


@dataclass(frozen=True, eq=False)
class Source:
    """What a path names: images, moments that somebody stored, both (ADM's references), or statistics of ours.

    Stored moments are taken as they are, on either side, as the ADM suite does; those of a file that names no
    extractor are those of ``moments_by``.
    """

    path: Path
    images: ImageSet | None = None
    moments: tuple[Moments, Moments | None] | None = None
    moments_sha256: str | None = None
    stored: Statistics | None = None
    moments_by: str = INCEPTION

    @classmethod
    def open(cls, path: Path, moments_by: str = INCEPTION) -> Self:
        """Look at what is there; no image is decoded. Raises UserError that names the file."""
        path = Path(path)
        if path.is_dir():
            return cls(path, images=open_images(path))
        with open_zip(path) as archive:
            header = own_header(archive)
            moments = header is None and "mu" in arrays_in(archive)
            images = not moments or "arr_0" in arrays_in(archive)
        if header is not None and header["kind"] == KIND:
            return cls(path, stored=Statistics.load(path))
        found = _stored_moments(path) if moments else (None, None)
        return cls(path, open_images(path) if images else None, *found, moments_by=moments_by)

    @property
    def rows(self) -> int:
        """Rows of features that it gives: those stored, else one of each image; 0 where it has moments only."""
        if self.stored is not None:
            return 0 if self.stored.features is None else len(self.stored.features)
        return 0 if self.images is None else len(self.images)

    def __str__(self) -> str:
        if self.stored is None:
            return f"{self.path}: {'moments' if self.images is None else self.images}"
        count = self.stored.count
        return f"{self.path}: statistics of {'an unknown number of' if count is None else f'{count:,}'} images"

    def statistics(self, extractor: Extractor) -> Statistics:
        """Statistics, of images as ``extractor`` sees them.

        Raises UserError that names the file, also if its statistics were made with another extractor.
        """
        if self.stored is not None:
            return self._of_the_same(extractor)
        if self.moments is not None and extractor.name != self.moments_by:
            raise UserError(
                f"{self.path}: mu and sigma of an extractor that it does not name, which is taken for Inception; they "
                f"cannot be compared with features of {extractor.name}"
            )
        names, moments_of = (extractor.name, extractor.sha256), {"moments": self.moments_sha256}
        if self.images is None:
            return Statistics(*names, *self.moments, made_of=moments_of)
        try:
            seen = Statistics.gather(extractor.extract(self.images), *names, self.images.labels)
            seen = replace(seen, made_of=self.images.made_of)
            if self.moments is None:
                return seen
            pool, spatial = self.moments
            return replace(seen, pool=pool, spatial=spatial, made_of={**seen.made_of, **moments_of})
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from error

    def _of_the_same(self, extractor: Extractor) -> Statistics:
        if (self.stored.extractor, self.stored.extractor_sha256) != (extractor.name, extractor.sha256):
            raise UserError(
                f"{self.path}: statistics of extractor {self.stored.extractor} ({self.stored.extractor_sha256[:12]}), "
                f"to be compared with features of {extractor.name} ({extractor.sha256[:12]}): make both with the same "
                "one"
            )
        return self.stored


def _stored_moments(path: Path) -> tuple[tuple[Moments, Moments | None], str]:
    """Pool and, if there are any, spatial moments, and the SHA-256 of the arrays."""
    with open_zip(path) as archive:
        names = sorted(name for name in arrays_in(archive) if name.startswith(("mu", "sigma", "count")))
        arrays = {name: read_array(archive, name, MOMENTS_BYTES) for name in names}
    try:
        return _moments_of(arrays), arrays_sha256(arrays)
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
