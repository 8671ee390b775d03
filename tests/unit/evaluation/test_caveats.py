"""Warnings about a model."""

from __future__ import annotations

from typing import Any

import pytest

from job.evaluation import caveats

EPOCH = {"stage": "fine_tuning", "epoch": 3, "val_loss": 0.1234}


def document(**changes: Any) -> dict[str, Any]:
    """Return a metrics.json without a reason to doubt the model, but for the changes."""
    labels = {"cats": {"precision": 0.9, "recall": 0.9}, "dogs": {"precision": 0.8, "recall": 0.8}}
    validation = {"images": 30, "accuracy": 0.85, "labels": labels}
    fields = {name: changes.pop(name) for name in ("kept", "stages", "data") if name in changes}
    return {
        "validation": validation | changes,
        "majority": {"label": "cats", "validation": 0.5},
        "kept": EPOCH,
        "stages": {"feature_extraction": {}, "fine_tuning": {}},
        "data": {"seen": {"validation": 0, "test": 0}},
        **fields,
    }


def test_good_model() -> None:
    """Thirty images, more right than the majority's and each label found: there is nothing to warn of."""
    assert [] == caveats.find(document())


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        (
            {"labels": {"cats": {"precision": 0.5, "recall": 1.0}, "dogs": {"precision": None, "recall": 0.1}}},
            "one_answer",
            "'cats'",
        ),
        ({"accuracy": 0.5}, "majority", "0.500"),
        (
            {"labels": {"cats": {"precision": 0.5, "recall": 1.0}, "dogs": {"precision": 0.0, "recall": 0.0}}},
            "recall_zero",
            "'dogs'",
        ),
        ({"images": 29}, "few_images", "29"),
        ({"kept": EPOCH | {"stage": "feature_extraction"}}, "stage_1_kept", "0.123"),
        ({"data": {"seen": {"validation": 4, "test": 0}}}, "seen_validation", "4 of the validation images"),
    ],
)
def test_warning(changes: dict[str, Any], code: str, named: str) -> None:
    """Each reason has its code, and names what was found."""
    [warned] = caveats.find(document(**changes))

    assert code == warned["code"]
    assert named in warned["text"]


def test_stage_2_skipped() -> None:
    """Where there is no stage 2, it did not fail to improve the model."""
    stages = {"feature_extraction": {}, "fine_tuning": None}

    assert [] == caveats.find(document(kept=EPOCH | {"stage": "feature_extraction"}, stages=stages))


def test_label_without_images() -> None:
    """A label that no validation image has is not reported as missed."""
    labels = {"cats": {"precision": 0.9, "recall": 0.9}, "dogs": {"precision": 0.0, "recall": None}}

    assert [] == caveats.find(document(labels=labels))


def test_of_another_split() -> None:
    """Warnings about one split name it, and need nothing of the training."""
    labels = {"cats": {"precision": 0.5, "recall": 1.0}, "dogs": {"precision": None, "recall": 0.0}}
    found = {"images": 9, "accuracy": 0.5, "labels": labels}
    warnings = caveats.find_in({"test": found, "majority": {"label": "cats", "test": 0.5}}, "test")

    assert ["one_answer", "majority", "recall_zero", "few_images"] == [warning["code"] for warning in warnings]
    assert not [warning for warning in warnings if "validation" in warning["text"]]
