"""The temperature and the threshold: fitted on validation, and applied once to test."""

from __future__ import annotations

import numpy as np

from job.evaluation import metrics
from job.evaluation.tuning import calibration_document, threshold_document

SCORES, LABELS = np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 1, 0])


def two(scores: np.ndarray) -> np.ndarray:
    """Return the probabilities of two labels, of which the second has these."""
    return np.stack([1 - scores, scores], axis=1)


def test_calibration() -> None:
    """The temperature is that of the metrics, with the log loss that it gives."""
    expected = metrics.fit_temperature(two(SCORES), LABELS)
    found = calibration_document(two(SCORES), LABELS)

    assert expected == (found["temperature"], found["log_loss"])
    assert {} == found["unavailable"]


def test_no_temperature() -> None:
    """Where all images are right, or none, both values are null with the reason."""
    right, wrong = (calibration_document(two(np.array([0.9, 0.8])), np.array([label] * 2)) for label in (1, 0))

    for found in (right, wrong):
        assert found["temperature"] is found["log_loss"] is None
        assert {"temperature", "log_loss"} == set(found["unavailable"])
    assert "every validation image is predicted correctly" in right["unavailable"]["temperature"]
    assert right["unavailable"] != wrong["unavailable"]


def test_threshold() -> None:
    """It has the highest F1 on validation, and is applied to test as it is."""
    test = two(np.array([0.3, 0.31, 0.29])), np.array([1, 0, 1])
    found = threshold_document({"validation": (two(SCORES), LABELS), "test": test}, "ab", 1)

    assert {"label": "b", "value": 0.3, "unavailable": {}}.items() <= found.items()
    assert {"precision": 2 / 3, "recall": 1.0, "f1": 0.8} == found["validation"]
    assert {"precision": 0.5, "recall": 0.5, "f1": 0.5} == found["test"]


def test_threshold_without_images() -> None:
    """Without validation images of the label there is none; without test images there is nothing to apply it to."""
    none = threshold_document({"validation": (two(SCORES), LABELS * 0), "test": (two(SCORES), LABELS)}, "ab", 1)
    no_test = threshold_document({"validation": (two(SCORES), LABELS)}, "ab", 0)
    test_without = {"validation": (two(SCORES), LABELS), "test": (two(SCORES * 0.1), LABELS * 0)}
    empty = threshold_document(test_without, "ab", 1)

    assert none["value"] is none["validation"] is none["test"] is None
    assert {"value", "validation", "test"} == set(none["unavailable"])
    assert no_test["test"] is None
    assert {"test"} == set(no_test["unavailable"])
    assert {"precision": None, "recall": None, "f1": None} == empty["test"]
    assert {"test.precision", "test.recall", "test.f1"} == set(empty["unavailable"])
