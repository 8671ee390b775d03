"""What could be tuned after training: the temperature and the threshold, fitted on validation. Neither is applied."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from job.evaluation import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Answers = tuple["NDArray[Any]", "NDArray[Any]"]
"""Probabilities, float32 [n, labels], and the true labels, int [n]."""


def calibration_document(probabilities: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
    """Return the temperature that minimises the log loss on validation, and that log loss.

    Args:
        probabilities: float32 [n, labels].
        labels: int [n].
    """
    temperature, log_loss = metrics.fit_temperature(probabilities, labels)
    if not math.isnan(temperature):
        return {"temperature": temperature, "log_loss": log_loss, "unavailable": {}}
    if (probabilities.argmax(axis=1) == labels).all():
        reason = "every validation image is predicted correctly: the log loss falls for every lower temperature"
    else:
        reason = "the log loss has no minimum at a temperature between 0.01 and 100"
    return {"temperature": None, "log_loss": None, "unavailable": {"temperature": reason, "log_loss": reason}}


def threshold_document(answers: Mapping[str, Answers], names: Sequence[str], label: int) -> dict[str, Any]:
    """Return the threshold that maximises the F1 of a label on validation, and what it gives there and on test.

    Args:
        answers: by split, "validation" and maybe "test".
        names: of the labels.
        label: the label that an image has if its probability is at least the threshold.
    """
    probabilities, labels = answers["validation"]
    value = metrics.best_threshold(probabilities[:, label], labels == label)
    document: dict[str, Any] = {"label": names[label], "value": None, "validation": None, "test": None}
    unavailable = {}
    if math.isnan(value):
        unavailable["value"] = unavailable["validation"] = "no validation image has the label"
    for split in ("validation", "test"):
        if split not in answers:
            unavailable[split] = f"there are no {split} images"
        elif split == "test" and math.isnan(value):
            unavailable[split] = unavailable["value"]
        elif not math.isnan(value):
            probabilities, labels = answers[split]
            predicted = (probabilities[:, label] >= value).astype(int)
            table = metrics.counts_by_label((labels == label).astype(int), predicted, 2)
            row = {name: float(table[name][1]) for name in ("precision", "recall", "f1")}
            document[split] = {name: None if math.isnan(number) else number for name, number in row.items()}
            reason = f"no {split} image has the label, or none reaches the threshold"
            unavailable |= {f"{split}.{name}": reason for name, number in row.items() if math.isnan(number)}
    return document | {"value": None if math.isnan(value) else value, "unavailable": unavailable}
