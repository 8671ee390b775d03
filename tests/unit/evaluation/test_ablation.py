"""The ablation: the same images and bootstrap samples for each model."""

from __future__ import annotations

import numpy as np
import pytest

from job.evaluation.ablation import ablation_rows
from job.evaluation.splits import split_document

LABELS = np.array([0, 0, 0, 1])
KEPT = np.float32([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])


def test_rows() -> None:
    """Each model is measured as the published one is, in the order in which they were made."""
    other = KEPT[::-1].copy()
    rows = ablation_rows(KEPT, LABELS, {"fine_tuning": KEPT, "feature_extraction": other}, np.array([3, 1]), 7)

    assert ["majority", "feature_extraction", "fine_tuning", "kept"] == [row["name"] for row in rows]
    for row, probabilities in zip(rows[1:], (other, KEPT, KEPT), strict=True):
        expected = split_document(probabilities, LABELS, "ab", 7)
        assert {name: expected[name] for name in ("accuracy", "balanced_accuracy", "log_loss")}.items() <= row.items()
        assert row["intervals"].items() <= expected["intervals"].items()


def test_majority() -> None:
    """It answers with the shares of the train split, and so with its most frequent label."""
    [majority, _] = ablation_rows(KEPT, LABELS, {}, np.array([3, 1]), 7)

    assert (0.75, 0.5) == (majority["accuracy"], majority["balanced_accuracy"])
    assert -(3 * np.log(0.75) + np.log(0.25)) / 4 == pytest.approx(majority["log_loss"], rel=1e-12)
    assert [0.5, 0.5] == majority["intervals"]["balanced_accuracy"]
