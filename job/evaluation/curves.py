"""metrics/curves.json: ROC, precision-recall and calibration curves, thinned so that the file stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from job.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_POINTS = 200
"""Points of a curve."""

MAX_LABELS, WORST = 50, 10
"""Of more labels than the first, only the second number, those with the lowest F1, have curves."""


def curves_document(probabilities: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the curves of one split.

    Args:
        probabilities: float32 [n, labels].
        labels: int [n], the true labels.
        names: of the labels. Those that no image has, or every image has, have no curve.
    """
    predictions = probabilities.argmax(axis=1)
    table = metrics.counts_by_label(labels, predictions, len(names))
    drawn = np.flatnonzero((table["support"] > 0) & (table["support"] < len(labels)))
    if len(names) > MAX_LABELS:
        drawn = drawn[np.argsort(table["f1"][drawn], kind="stable")[:WORST]]
    found = {names[number]: _label_curves(probabilities[:, number], labels == number) for number in drawn.tolist()}
    images, confidence, accuracy = metrics.calibration_bins(probabilities, labels)
    used = images > 0
    return {
        "roc": {name: roc for name, (roc, _) in found.items()},
        "pr": {name: pr for name, (_, pr) in found.items()},
        "calibration": {
            "confidence": confidence[used].tolist(),
            "accuracy": accuracy[used].tolist(),
            "images": images[used].tolist(),
        },
    }


def _label_curves(scores: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ROC and the precision-recall curve of a label with and without images; rising with falling threshold.

    The ROC curve starts at (0, 0), where no image is predicted to have the label, so its first threshold is None.
    """
    order, starts = metrics.descending(scores)
    ends = np.append(starts[1:], len(scores))
    hits = positive[order].cumsum()[ends - 1]
    thresholds = scores[order][starts].astype(np.float64).tolist()
    recall, precision = hits / positive.sum(), hits / ends
    false, true = np.append(0.0, (ends - hits) / (~positive).sum()), np.append(0.0, recall)
    roc, pr = _thinned(false, true), _thinned(recall, precision)
    return {
        "false_positive_rate": false[roc].tolist(),
        "true_positive_rate": true[roc].tolist(),
        "threshold": [[None, *thresholds][point] for point in roc.tolist()],
    }, {
        "recall": recall[pr].tolist(),
        "precision": precision[pr].tolist(),
        "threshold": [thresholds[point] for point in pr.tolist()],
    }


def _thinned(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return at most 200 points of a curve, its ends included, int [k]: equally far apart along the curve."""
    if len(x) <= MAX_POINTS:
        return np.arange(len(x))
    length = np.append(0.0, (np.abs(np.diff(x)) + np.abs(np.diff(y))).cumsum())
    points = np.searchsorted(length, np.linspace(0.0, length[-1], MAX_POINTS))
    points[-1] = len(x) - 1
    return np.unique(points)
