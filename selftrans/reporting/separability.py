"""How well classes are told apart by features (N, D), or by tokens (N, T, D): numbers beside the pictures.

All are functions of their arguments alone: what is drawn at random is drawn with a fixed seed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FOLDS = 5
NEIGHBOURS = 5


@dataclass(frozen=True)
class Separability:
    """Accuracies in [0, 1] on images that were held out, and the mean silhouette in [-1, 1]."""

    linear_probe: float
    nearest_neighbours: float
    silhouette: float

    @classmethod
    def of(cls, features: "np.ndarray", labels: "np.ndarray") -> "Separability":
        """Of features (N, D) with labels (N,). Raises ValueError if a class has fewer images than there are folds."""
        return cls(
            linear_probe(features, labels),
            neighbour_accuracy(features, labels),
            silhouette(features, labels),
        )


def linear_probe(features: "np.ndarray", labels: "np.ndarray") -> float:
    """Accuracy of logistic regression on standardised features (N, D), each fifth of the images held out once."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(cross_val_score(probe, features, labels, cv=folds, error_score="raise").mean())


def neighbour_accuracy(features: "np.ndarray", labels: "np.ndarray") -> float:
    """How often most of an image's five nearest others, by Euclidean distance, are of its class; the lower at ties."""
    import numpy as np
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(features).kneighbors(return_distance=False)
    votes = np.stack([(labels[neighbours] == label).sum(axis=1) for label in np.unique(labels)])
    return float((np.unique(labels)[votes.argmax(axis=0)] == labels).mean())


def silhouette(features: "np.ndarray", labels: "np.ndarray") -> float:
    """Mean over images of (b - a) / max(a, b): distances to the own class, a, and to the nearest other, b."""
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(features, labels))


def class_share(tokens: "np.ndarray", labels: "np.ndarray") -> float:
    """Which share of the variance of tokens (N, T, D) over images, place by place, is one between classes (N,).

    Corrected for the number of classes K, as adjusted R²: 0 is expected of labels that say nothing, 1 if an image's
    class says all. It may be a little negative.
    """
    import numpy as np

    centred = tokens - tokens.mean(axis=0)
    within = sum(np.square(centred[labels == k] - centred[labels == k].mean(axis=0)).sum() for k in np.unique(labels))
    count, classes = len(labels), len(np.unique(labels))
    return float(1 - (within / (count - classes)) / (np.square(centred).sum() / (count - 1)))
