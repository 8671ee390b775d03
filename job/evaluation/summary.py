"""What matters most in a metrics.json: the facts of the log's event `run.evaluated`, and of the closing block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Document = dict[str, Any]


def metrics_summary(document: Mapping[str, Any]) -> Document:
    """Return what matters most in a metrics.json, which may be that of an older version.

    Raises:
        KeyError, TypeError, AttributeError: the document is no metrics.json.
    """
    warnings = {"warnings": [warned["code"] for warned in document.get("warnings", [])]}
    scores = {name: document[name] and _split_summary(document[name]) for name in ("validation", "test")}
    gate = {name: document[name] for name in ("gate",) if name in document}
    return scores | {name: document[name] for name in ("kept", "stages")} | warnings | gate


def _split_summary(split_document: Mapping[str, Any]) -> Document:
    """Return the metrics of all labels together, and the label with the lowest recall."""
    names = ("images", "accuracy", "loss", "balanced_accuracy", "log_loss", "roc_auc", "pr_auc")
    summary = {name: split_document[name] for name in names if name in split_document}
    recalls = {name: row["recall"] for name, row in split_document.get("labels", {}).items()}
    if present := {name: recall for name, recall in recalls.items() if recall is not None}:
        label = min(present, key=present.__getitem__)
        summary["lowest_recall"] = {"label": label, "recall": present[label]}
    return summary
