"""What metrics.json has of one split: each metric with its interval, and the reason for each that is undefined."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from job.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

MAX_MATRIX = 50
"""Labels up to which metrics.json has the confusion matrix; for more, confusion.csv has it."""

MAX_CONFUSED = 50
"""Number of the most frequent confusions that are listed."""

Document = dict[str, Any]


def split_document(
    probabilities: NDArray[Any], labels: NDArray[Any], names: Sequence[str], seed: int, *, split: str = "validation"
) -> Document:
    """Return the metrics of a model's probabilities for one split, as metrics.json has them.

    Args:
        probabilities: float32 [n, labels]; n is at least 1.
        labels: int [n], the true labels.
        names: of the labels, at least two.
        seed: of the bootstrap.
        split: its name, for the reasons.
    """
    predictions = probabilities.argmax(axis=1)
    table = metrics.counts_by_label(labels, predictions, len(names))
    areas = [metrics.areas(probabilities[:, number], labels == number) for number in range(len(names))]
    table["roc_auc"], table["pr_auc"] = np.concatenate(areas, axis=1)
    rows, unavailable = _by_label(table, names, split)
    intervals = interval_document(metrics.resample(probabilities, labels, seed), names)
    summary = {}
    for name in ("roc_auc", "pr_auc"):
        defined = table[name][~np.isnan(table[name])] if len(names) > 2 else table[name][1:]
        summary[name] = _or_none(float(defined.mean())) if len(defined) else None
        if summary[name] is None:
            unavailable[name] = unavailable[f"labels.{names[1]}.{name}"]
        if intervals[name] is None:
            unavailable[f"intervals.{name}"] = unavailable.get(name, "it is computed for two labels only")
    for name, interval in intervals["recall"].items():
        if interval is None:
            unavailable[f"intervals.recall.{name}"] = unavailable[f"labels.{name}.recall"]
    if len(names) > MAX_MATRIX:
        unavailable["confusion"] = f"over {MAX_MATRIX} labels: metrics/confusion.csv has it"
    return {
        "images": len(labels),
        **compared(probabilities, labels),
        "brier": metrics.brier(probabilities, labels),
        "expected_calibration_error": metrics.calibration_error(probabilities, labels),
        **summary,
        "labels": rows,
        "confusion": _confusion(labels, predictions, names) if len(names) <= MAX_MATRIX else None,
        "confused": _confused(labels, predictions, names),
        "intervals": intervals,
        "unavailable": unavailable,
    }


def compared(probabilities: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Return the metrics by which models are compared: accuracy, balanced accuracy and log loss.

    The balanced accuracy is the mean recall of the labels that have images.
    """
    predictions = probabilities.argmax(axis=1)
    recall = metrics.counts_by_label(labels, predictions, probabilities.shape[1])["recall"]
    return {
        "accuracy": float((predictions == labels).mean()),
        "balanced_accuracy": float(recall[~np.isnan(recall)].mean()),
        "log_loss": float(metrics.log_losses(probabilities, labels).mean()),
    }


def interval_document(samples: dict[str, NDArray[Any]], names: Sequence[str]) -> Document:
    """Return the 95 % intervals of bootstrap samples, each [low, high], or None where no sample defines the metric.

    Args:
        samples: see `metrics.resample`.
        names: of the labels.
    """
    scalars = ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "pr_auc")
    intervals: Document = {name: interval(samples[name]) if name in samples else None for name in scalars}
    return intervals | {"recall": dict(zip(names, map(interval, samples["recall"].T), strict=True))}


def interval(samples: NDArray[Any]) -> list[float] | None:
    """Return the 95 % interval of a metric's bootstrap samples; None if no sample defines the metric."""
    low, high = metrics.interval(samples)
    return None if math.isnan(low) else [low, high]


def _by_label(
    table: dict[str, NDArray[Any]], names: Sequence[str], split: str
) -> tuple[dict[str, Document], dict[str, str]]:
    """Return the metrics of each label, and the reason for each that is None."""
    rows: dict[str, Document] = {}
    reasons: dict[str, str] = {}
    for number, label in enumerate(names):
        row = {name: _or_none(float(values[number])) for name, values in table.items()}
        absent = f"no {split} image has the label" if not row["support"] else f"every {split} image has the label"
        reason = {
            "precision": f"no {split} image is predicted to have the label",
            "f1": f"no {split} image has the label or is predicted to have it",
        }
        reasons |= {f"labels.{label}.{name}": reason.get(name, absent) for name, value in row.items() if value is None}
        rows[label] = row | {"support": int(table["support"][number])}
    return rows, reasons


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _confusion(labels: NDArray[Any], predictions: NDArray[Any], names: Sequence[str]) -> Document:
    return {"labels": list(names), "counts": [row.tolist() for row in confusion_rows(labels, predictions, len(names))]}


def confusion_rows(labels: NDArray[Any], predictions: NDArray[Any], total: int) -> Iterator[NDArray[Any]]:
    """Yield the confusion matrix by true label: the number of images by prediction, int [total] each."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(total + 1))
    for start, end in itertools.pairwise(bounds.tolist()):
        yield np.bincount(predictions[order[start:end]], minlength=total)


def _confused(labels: NDArray[Any], predictions: NDArray[Any], names: Sequence[str]) -> list[Document]:
    """Return the most frequent pairs of a label and a wrong prediction; of equal ones, the first in label order."""
    wrong = labels != predictions
    pairs, images = np.unique(np.stack([labels[wrong], predictions[wrong]]), axis=1, return_counts=True)
    return [
        {"label": names[pairs[0, pair]], "prediction": names[pairs[1, pair]], "images": int(images[pair])}
        for pair in np.argsort(-images, kind="stable")[:MAX_CONFUSED].tolist()
    ]
