"""The metrics, in NumPy and float64: how good a classifier's probabilities are, measured against the labels.

Definitions and names are those of scikit-learn where it has the metric (docs/adr/0013-own-metrics.md). What is not
defined is NaN here; `splits` turns that into None with its reason. In all signatures `probabilities` is float32 or
float64 [n, labels], `labels` int [n], and the prediction is the first label with the highest probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Array = np.ndarray[Any, Any]

DRAWS = 1000
"""Bootstrap samples per interval."""

BINS = 15
"""Bins of the calibration error, of equal width."""

_CHUNK = 2**18  # numbers that are processed at a time: bounds the memory, and fits into the CPU's caches


def counts_by_label(labels: Array, predictions: Array, total: int) -> dict[str, NDArray[np.float64]]:
    """Return support, precision, recall and F1 of each label, each float64 [total]."""
    images = (labels[labels == predictions], labels, predictions)
    hits, support, predicted = (np.bincount(rows, minlength=total).astype(np.float64) for rows in images)
    precision, recall, f1 = _ratio(hits, predicted), _ratio(hits, support), _ratio(2 * hits, support + predicted)
    return {"support": support, "precision": precision, "recall": recall, "f1": f1}


def _ratio(counts: Array, of: Array) -> NDArray[np.float64]:
    """Return counts / of; NaN where `of` is 0."""
    ratio = np.full(of.shape, np.nan)
    np.divide(counts, of, out=ratio, where=of > 0)
    return ratio


def log_losses(probabilities: Array, labels: Array) -> NDArray[np.float64]:
    """Return each image's cross-entropy, float64 [n]; probabilities are clipped at float64's epsilon, 2.2e-16."""
    epsilon = np.finfo(np.float64).eps
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), epsilon, 1 - epsilon))


def brier(probabilities: Array, labels: Array) -> float:
    """Return the mean squared error: of the second label's probability for two labels, summed over labels for more."""
    total = 0.0
    for rows in _chunks(probabilities):
        errors = probabilities[rows].astype(np.float64)
        errors[np.arange(len(errors)), labels[rows]] -= 1
        total += float(np.square(errors).sum())
    return total / len(labels) / (2 if probabilities.shape[1] == 2 else 1)


def calibration_bins(probabilities: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Return the images, the mean confidence and the accuracy of 15 bins of equal width, each [15].

    An image's confidence is the probability of its prediction. A bin includes its upper bound.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(bins, minlength=BINS)
    correct = np.bincount(bins, probabilities.argmax(axis=1) == labels, minlength=BINS)
    return images, _ratio(np.bincount(bins, confidence, minlength=BINS), images), _ratio(correct, images)


def calibration_error(probabilities: Array, labels: Array) -> float:
    """Return the expected calibration error: the bins' mean |accuracy - confidence|, weighted by their images.

    Guo et al.: On Calibration of Modern Neural Networks, 2017, https://arxiv.org/abs/1706.04599
    """
    images, confidence, accuracy = calibration_bins(probabilities, labels)
    return float(np.nansum(images * np.abs(accuracy - confidence)) / images.sum())


def areas(scores: Array, positive: NDArray[np.bool_], weights: Array | None = None) -> tuple[Array, Array]:
    """Return the areas under the ROC and the precision-recall curve (average precision), float64 [draws] each.

    Args:
        scores: of the label, float [n].
        positive: the images that have it, bool [n].
        weights: [draws, n], how often each image counts; None: one draw, in which each counts once.
    """
    order, starts = descending(scores)
    weights = np.ones((1, len(order)), np.int64) if weights is None else np.take(weights, order, axis=1)
    hits = np.add.reduceat(weights * positive[order], starts, axis=1)
    totals = np.add.reduceat(weights, starts, axis=1)
    all_hits, all_images = hits.cumsum(axis=1), totals.cumsum(axis=1)
    positives, negatives = all_hits[:, -1], all_images[:, -1] - all_hits[:, -1]
    # Tied scores count half: the trapezoid below a step that goes up and to the right at once.
    above = ((totals - hits) * (all_hits - hits / 2)).sum(axis=1)
    precisions = hits * all_hits / np.maximum(all_images, 1)
    return _ratio(above, positives * negatives), _ratio(precisions.sum(axis=1), positives)


def descending(scores: Array) -> tuple[Array, Array]:
    """Return the order of falling scores, int [n], and where in it each distinct score starts, int [distinct]."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) != 0]))


def resample(probabilities: Array, labels: Array, seed: int) -> dict[str, Array]:
    """Return metrics of 1,000 bootstrap samples of the images: "accuracy", "balanced_accuracy", "log_loss", [draws].

    Also "recall", [draws, labels], and for two labels "roc_auc" and "pr_auc". NaN: the sample has no image of the
    label. In the balanced accuracy, such a label counts with its recall in all images. The samples depend on `seed` and
    the labels alone, so the differences between two models are paired.
    """
    present, starts = np.unique(labels[order := np.argsort(labels, kind="stable")], return_index=True)
    correct = (probabilities.argmax(axis=1) == labels)[order]
    losses = log_losses(probabilities, labels)[order]
    overall = np.add.reduceat(correct, starts, dtype=np.int64) / np.diff([*starts, len(labels)])
    found: dict[str, list[Array]] = {}
    for weights in draws(len(labels), seed):
        support = np.add.reduceat(weights, starts, axis=1)
        hits = np.add.reduceat(weights * correct, starts, axis=1)
        recall = _ratio(hits, support)
        values = {
            "accuracy": hits.sum(axis=1) / len(labels),
            "balanced_accuracy": np.where(support > 0, recall, overall).mean(axis=1),
            "log_loss": (weights * losses).sum(axis=1) / len(labels),
            "recall": np.full((len(weights), probabilities.shape[1]), np.nan),
        }
        values["recall"][:, present] = recall
        if probabilities.shape[1] == 2:
            values["roc_auc"], values["pr_auc"] = areas(probabilities[order, 1], labels[order] == 1, weights)
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def draws(images: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each image is in each of 1,000 samples of `images` with replacement, [some draws, images]."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    for start in range(0, DRAWS, size := max(1, _CHUNK // images)):
        number = min(size, DRAWS - start)
        chosen = random.integers(0, images, (number, images)) + np.arange(number)[:, None] * images
        yield np.bincount(chosen.ravel(), minlength=number * images).reshape(number, images)


def interval(values: Array) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of a metric's bootstrap samples [draws]; NaN if no sample defines it."""
    defined = values[~np.isnan(values)]
    low, high = np.percentile(defined, (2.5, 97.5)).tolist() if len(defined) else (np.nan, np.nan)
    return low, high


def fit_temperature(probabilities: Array, labels: Array) -> tuple[float, float]:
    """Return the T that minimises the mean log loss of softmax(log(probabilities) / T), and that log loss.

    The log loss is convex in 1/T. NaN if its minimum is not between T = 0.01 and T = 100.
    """
    low, high, inverse = 0.01, 100.0, 1.0
    if _slope(probabilities, labels, low)[0] >= 0 or _slope(probabilities, labels, high)[0] <= 0:
        return np.nan, np.nan
    for _ in range(100):  # Newton's method; where it leaves the bracket, bisection
        slope, curvature, loss = _slope(probabilities, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else np.nan
        previous, inverse = inverse, step if low <= step <= high else float(np.sqrt(low * high))
        if abs(inverse - previous) <= 1e-13 * inverse:
            break
    return 1 / inverse, loss


def _slope(probabilities: Array, labels: Array, inverse: float) -> tuple[float, float, float]:
    """Return the first and second derivative of the mean log loss with respect to 1/T, and the log loss itself."""
    sums = np.zeros(3)
    for rows in _chunks(probabilities):
        logits = np.log(np.maximum(probabilities[rows].astype(np.float64), np.finfo(np.float32).tiny))
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(logits)), labels[rows]]
        exponentials = np.exp(logits * inverse)
        totals = exponentials.sum(axis=1)
        mean = (exponentials * logits).sum(axis=1) / totals
        variance = (exponentials * np.square(logits - mean[:, None])).sum(axis=1) / totals
        sums += ((mean - chosen).sum(), variance.sum(), (np.log(totals) - chosen * inverse).sum())
    slope, curvature, loss = (sums / len(labels)).tolist()
    return slope, curvature, loss


def best_threshold(scores: Array, positive: NDArray[np.bool_]) -> float:
    """Return the highest score from which predicting the label has the highest F1; NaN if no image has it."""
    if not positive.any():
        return np.nan
    order, starts = descending(scores)
    ends = np.append(starts[1:], len(scores))
    hits = positive[order].cumsum()[ends - 1]
    return float(scores[order][starts[np.argmax(2 * hits / (ends + positive.sum()))]])


def _chunks(probabilities: Array) -> Iterator[slice]:
    size = max(1, _CHUNK // probabilities.shape[1])
    return (slice(start, start + size) for start in range(0, len(probabilities), size))
