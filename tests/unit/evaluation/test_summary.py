"""The summary of metrics.json in the log and in the closing block."""

from __future__ import annotations

import pytest

from job.evaluation.summary import metrics_summary

KEPT = {"stage": "fine_tuning", "epoch": 2}


def test_summary() -> None:
    """It has the metrics of all labels together, the label with the lowest recall, and the codes of the warnings."""
    split = {
        "images": 4,
        "accuracy": 0.75,
        "loss": 0.5,
        "balanced_accuracy": 0.6,
        "log_loss": 0.5,
        "roc_auc": None,
        "pr_auc": None,
    }
    rows = {"a": {"recall": 1.0}, "b": {"recall": 0.2}, "c": {"recall": None}}
    document = {
        "validation": split | {"labels": rows, "confused": [1], "intervals": {}},
        "test": None,
        "kept": KEPT,
        "stages": {},
        "warnings": [{"code": "few_images", "text": "…"}],
        "gate": {"passed": True, "checks": []},
        "timing": {"total": 1.0},
    }

    assert {
        "validation": split | {"lowest_recall": {"label": "b", "recall": 0.2}},
        "test": None,
        "kept": KEPT,
        "stages": {},
        "warnings": ["few_images"],
        "gate": {"passed": True, "checks": []},
    } == metrics_summary(document)


def test_metrics_of_an_older_version() -> None:
    """What they lack is left out."""
    split = {"images": 4, "accuracy": 0.75, "loss": 0.5}
    document = {"validation": split, "test": split, "kept": KEPT, "stages": {}}

    assert document | {"warnings": []} == metrics_summary(document)


def test_foreign_document() -> None:
    """A document that is no metrics.json is an error."""
    with pytest.raises(KeyError):
        metrics_summary({"accuracy": 1})
