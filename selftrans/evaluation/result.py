"""One evaluation: all metrics of one set of samples, and everything a number needs to be compared."""

import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from torch import Tensor

from selftrans.errors import UserError
from selftrans.evaluation.checks import require_neighbours
from selftrans.evaluation.features import INCEPTION
from selftrans.evaluation.frechet import frechet_distance
from selftrans.evaluation.inception_score import inception_score
from selftrans.evaluation.kid import kid
from selftrans.evaluation.precision_recall import precision_recall
from selftrans.evaluation.statistics import Statistics


@dataclass(frozen=True)
class Result:
    """The metrics, and beside them what they depend on: only results that agree in it are comparable.

    A metric is None where samples or reference lack what it is made of.
    """

    frechet: float
    spatial_frechet: float | None
    inception_score: float | None
    precision: float | None
    recall: float | None
    kid: float | None
    kid_std: float | None
    accuracy: float | None  # share of samples that the extractor takes for the label they were asked to be
    samples: int | None
    references: int | None  # rows behind precision and recall
    sample_images: int | None  # images behind the samples' mean and covariance, where the file says it
    reference_images: int | None  # the same of the reference
    k: int
    split_size: int
    extractor: str
    extractor_sha256: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """The result for people. FID, sFID and KID are so called only if they are Inception's."""
        inception = self.extractor == INCEPTION
        frechet, kernel = ("FID", "KID") if inception else ("Fréchet distance", "kernel distance")
        moments = f"{_number(self.sample_images)} samples, {_number(self.reference_images)} reference images"
        neighbours = f"k = {self.k}, {_number(self.samples)} samples, {_number(self.references)} references"
        lines = [
            (frechet, self.frechet, ".4f", moments),
            ("sFID" if inception else f"spatial {frechet}", self.spatial_frechet, ".4f", moments),
            ("Inception Score", self.inception_score, ".4f", f"splits of {_number(self.split_size)}, in file order"),
            ("precision", self.precision, ".4f", neighbours),
            ("recall", self.recall, ".4f", neighbours),
            (kernel, self.kid, ".6f", f"± {self.kid_std:.6f} over subsets" if self.kid is not None else ""),
            ("accuracy", self.accuracy, ".4f", "of the extractor, on the labels that were asked for"),
        ]
        shown = [f"  {name:<25}{value:>12{form}}   {about}" for name, value, form, about in lines if value is not None]
        return "\n".join([f"through {self.extractor} ({self.extractor_sha256[:8]})", *shown])


def evaluate(
    samples: Statistics,
    reference: Statistics,
    *,
    k: int = 3,
    split_size: int = 5000,
    kid_subsets: int = 0,
) -> Result:
    """Measure ``samples``, in file order, against ``reference``, on the CPU in float64; KID if it has subsets.

    Warns of sets too small for precision and recall, which are left out. Raises UserError if the two were made with
    different extractors, ValueError for what the other metrics cannot be taken of (other dimensions than the
    reference's; for KID, no features or too few).
    """
    _require_same_extractor(samples, reference)
    both_spatial = samples.spatial is not None and reference.spatial is not None
    features = None
    if samples.features is not None and reference.features is not None:
        features = reference.features, samples.features
    elif kid_subsets:
        raise ValueError("no KID without features of both samples and reference")
    kid_mean, kid_std = kid(*features, kid_subsets) if kid_subsets else (None, None)  # first, since it may refuse
    precision, recall = _precision_recall(*features, k) if features else (None, None)
    return Result(
        frechet=frechet_distance(samples.pool, reference.pool),
        spatial_frechet=frechet_distance(samples.spatial, reference.spatial) if both_spatial else None,
        inception_score=None if samples.logits is None else inception_score(samples.logits, split_size, samples.labels),
        precision=precision,
        recall=recall,
        kid=kid_mean,
        kid_std=kid_std,
        accuracy=_accuracy(samples),
        samples=samples.count,
        references=None if reference.features is None else len(reference.features),
        sample_images=samples.pool.count,
        reference_images=reference.pool.count,
        k=k,
        split_size=split_size,
        extractor=samples.extractor,
        extractor_sha256=samples.extractor_sha256,
        versions={name: version(name) for name in ("numpy", "scipy", "torch", "torch-fidelity")},
    )


def _precision_recall(reference: Tensor, samples: Tensor, k: int) -> tuple[float | None, float | None]:
    """Both None, with a warning, of sets without enough rows, whose Fréchet distance can be taken all the same."""
    try:
        require_neighbours(reference, "reference features", k)
        require_neighbours(samples, "sample features", k)
    except ValueError as error:
        warnings.warn(f"no precision and recall: {error}", stacklevel=3)
        return None, None
    return precision_recall(reference, samples, k)


def _require_same_extractor(samples: Statistics, reference: Statistics) -> None:
    if (samples.extractor, samples.extractor_sha256) != (reference.extractor, reference.extractor_sha256):
        raise UserError(
            f"the samples' features are of extractor {samples.extractor} ({samples.extractor_sha256[:12]}), the "
            f"reference's of {reference.extractor} ({reference.extractor_sha256[:12]}): make both with the same one"
        )


def _accuracy(samples: Statistics) -> float | None:
    """None for Inception, whose 1008 classes are in an order of their own, and for labels of other classes."""
    labels, logits = samples.labels, samples.logits
    if labels is None or logits is None or samples.extractor == INCEPTION or labels.max() >= logits.shape[1]:
        return None
    return (logits.argmax(dim=1) == labels).double().mean().item()


def _number(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"
