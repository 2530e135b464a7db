"""The Kernel Inception Distance, by torch-fidelity."""

from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from selftrans.evaluation.checks import require_rows, require_same_width

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020  # torch-fidelity's own


def kid(reference: Tensor, samples: Tensor, subsets: int = SUBSETS) -> tuple[float, float]:
    """(mean, standard deviation) over random subsets of 1000 of the squared MMD of two sets of features (N, D).

    Bińkowski et al. (2018): the kernel is (xᵀy / D + 1)³, the estimate unbiased, so that it may be negative.
    Raises ValueError if a set has fewer than 1000 rows, one that is not finite, or another dimension.
    """
    for what, features in {"reference features": reference, "sample features": samples}.items():
        require_rows(features, f"{what} for KID", at_least=SUBSET_SIZE)
    require_same_width(reference, samples, "reference and sample features")
    found = kid_features_to_metric(
        samples, reference, kid_subsets=subsets, kid_subset_size=SUBSET_SIZE, rng_seed=SEED, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
