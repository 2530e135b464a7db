"""The Inception Score: known values, the splits, and second opinions."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

from selftrans.evaluation.inception_score import inception_score


def random_logits(rows, classes, seed=0, scale=3.0):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(labels, classes, certainty=1000.0):
    return certainty * torch.nn.functional.one_hot(labels, classes)


def restated(logits, split_size):
    """Mean over splits of exp(mean KL(p || mean p)), spelt out in numpy."""
    scores = []
    for start in range(0, len(logits), split_size):
        part = logits[start : start + split_size].double().numpy()
        p = np.exp(part - part.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        divergence = (p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
    return float(np.mean(scores))


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_sure_and_balanced_scores_the_number_of_classes(classes):
    labels = torch.arange(4 * classes) % classes
    assert inception_score(one_hot(labels, classes)) == pytest.approx(classes, rel=1e-12)


def test_one_answer_for_all_scores_one():
    assert inception_score(random_logits(1, 10).expand(500, 10)) == pytest.approx(1, abs=1e-12)
    assert inception_score(torch.zeros(500, 10)) == pytest.approx(1, abs=1e-12)
    assert inception_score(random_logits(1, 10)) == pytest.approx(1, abs=1e-12)


def test_half_sure():
    """p is (1-e, e) or (e, 1-e), mean p is uniform: the score is exp(log 2 - H(e))."""
    e = 0.1
    logits = torch.tensor([[1 - e, e], [e, 1 - e]]).double().log().repeat(50, 1)
    entropy = -e * math.log(e) - (1 - e) * math.log(1 - e)
    assert inception_score(logits) == pytest.approx(2 / math.exp(entropy), rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 80),
    classes=st.integers(1, 12),
    split_size=st.integers(1, 90),
    seed=st.integers(0, 999),
)
@pytest.mark.filterwarnings("ignore:the inception score")
def test_equal_to_its_restatement(rows, classes, split_size, seed):
    logits = random_logits(rows, classes, seed)
    found = inception_score(logits, split_size)
    assert found == pytest.approx(restated(logits, split_size), rel=1e-9)
    assert 1 - 1e-12 <= found <= classes * (1 + 1e-12)


@pytest.mark.parametrize(("rows", "split_size"), [(300, 5000), (300, 100)])
def test_torch_fidelity_agrees(rows, split_size):
    logits = random_logits(rows, 20)
    splits = max(1, rows // split_size)
    second = isc_features_to_metric(logits, splits=splits, shuffle=False)[KEY_METRIC_ISC_MEAN]
    assert inception_score(logits, split_size) == pytest.approx(second, rel=1e-9)
    assert inception_score(logits.float(), split_size) == pytest.approx(second, rel=1e-6)


def test_a_short_last_split_counts_like_the_others():
    logits = random_logits(250, 10)
    parts = [inception_score(part) for part in (logits[:100], logits[100:200], logits[200:])]
    assert inception_score(logits, 100) == pytest.approx(sum(parts) / 3, rel=1e-12)


def test_order_within_a_split_does_not_matter():
    logits = random_logits(200, 10)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert inception_score(logits[order]) == pytest.approx(inception_score(logits), rel=1e-12)


def test_samples_sorted_by_class_are_warned_about():
    classes, split_size = 10, 100
    labels = torch.arange(1000) % classes
    assert inception_score(one_hot(labels, classes), split_size) == pytest.approx(classes)
    with pytest.warns(UserWarning, match="is 1 over splits of 100, 10 over all 1000.*sorted by class"):
        found = inception_score(one_hot(labels.sort().values, classes), split_size)
    assert found == pytest.approx(1, abs=1e-12)


def test_sorted_labels_are_warned_about_even_if_the_score_does_not_show_it():
    logits, labels = random_logits(400, 10), torch.arange(400) // 40
    with pytest.warns(UserWarning, match="the samples are sorted by class"):
        assert inception_score(logits, 100, labels) == inception_score(logits, 100)


@pytest.mark.parametrize(
    ("split_size", "labels"), [(100, torch.arange(400) % 10), (100, torch.zeros(400)), (5000, torch.arange(400) // 40)]
)
def test_other_labels_and_single_splits_are_not_warned_about(split_size, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inception_score(random_logits(400, 10), split_size, labels) > 1


def test_shuffled_samples_are_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inception_score(random_logits(2000, 10), 500) > 1


def test_huge_logits():
    """A softmax in float32 underflows here, and its 0 log 0 is NaN."""
    logits = random_logits(100, 10).float() * 1e30
    expected = inception_score(one_hot(logits.argmax(dim=1), 10))
    assert inception_score(logits) == pytest.approx(expected, rel=1e-12)


def test_bad_rows():
    logits = random_logits(40, 5)
    logits[31, 2] = torch.nan
    with pytest.raises(ValueError, match="logits: row 31"):
        inception_score(logits)
    with pytest.raises(ValueError, match="at least 1 rows are needed, got 0"):
        inception_score(torch.zeros(0, 5))
    with pytest.raises(ValueError, match=r"got shape \(5,\)"):
        inception_score(torch.zeros(5))


def test_pinned():
    """A case that needs no random numbers."""
    logits = 4 * torch.sin(torch.arange(3000, dtype=torch.float64).reshape(300, 10) ** 1.5)
    assert inception_score(logits) == pytest.approx(restated(logits, 5000), rel=1e-12)
    assert inception_score(logits) == pytest.approx(2.528197478569746, rel=1e-9)
