"""The Inception Score: how sure a classifier is of each sample, and how varied its answers are over all."""

import warnings

import torch
from torch import Tensor

from selftrans.evaluation.checks import require_rows


def inception_score(logits: Tensor, split_size: int = 5000, labels: Tensor | None = None) -> float:
    """exp(H(mean p) - mean H(p)) with p = softmax(logits), averaged over splits; between 1 and K.

    ``logits`` is (N, K). Salimans et al. (2016), with the splits of the ADM suite (Dhariwal and Nichol,
    2021): consecutive rows in file order, a shorter last one counts like the others.

    Warns if ``labels`` (N,), the classes that were asked for, are sorted, or if all samples in one split would
    score over 25% more: then the samples are sorted by class, or the last split is too short, and the score
    says so rather than anything about the generator.
    Raises ValueError if there is no row or one is not finite.
    """
    require_rows(logits, "logits")
    splits = [_entropies(split) for split in logits.split(split_size)]
    score = sum(_score(marginal, entropy) for _, marginal, entropy in splits) / len(splits)
    marginal = sum(count * marginal for count, marginal, _ in splits) / len(logits)
    entropy = sum(count * entropy for count, _, entropy in splits) / len(logits)
    if len(splits) > 1:
        _warn_of_order(score, _score(marginal, entropy), len(logits), split_size, labels)
    return score


def _entropies(logits: Tensor) -> tuple[int, Tensor, Tensor]:
    """(rows, mean p (K,), mean entropy of p in nats) of one split."""
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    return len(logits), p.mean(dim=0), -(p * log_p).sum(dim=1).mean()  # log_p is finite: 0 log 0 is 0


def _score(marginal: Tensor, entropy: Tensor) -> float:
    return (torch.special.entr(marginal).sum() - entropy).exp().item()


def _warn_of_order(score: float, whole: float, count: int, split_size: int, labels: Tensor | None) -> None:
    if labels is not None and (labels.diff() >= 0).all() and labels[0] < labels[-1]:
        reason = "the samples are sorted by class"
    elif whole > 1.25 * score:
        reason = "the samples seem to be sorted by class, or the last split is too short"
    else:
        return
    warnings.warn(
        f"the inception score is {score:.4g} over splits of {split_size}, {whole:.4g} over all {count} samples at "
        f"once: {reason}",
        stacklevel=3,
    )
