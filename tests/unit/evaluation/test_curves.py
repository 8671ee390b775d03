"""The curves: scikit-learn's points, thinned."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as oracle

from job.evaluation.curves import MAX_POINTS, curves_document


def answers(labels: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, float32 [images, labels], and labels that they predict better than chance."""
    random = np.random.default_rng(images)
    probabilities = random.dirichlet(np.ones(labels), images).astype(np.float32)
    return probabilities, np.where(
        random.random(images) < 0.5, probabilities.argmax(axis=1), np.arange(images) % labels
    )


def test_points() -> None:
    """A short curve has every threshold's point, as scikit-learn has it."""
    probabilities, labels = answers(2, 100)
    probabilities = np.round(probabilities, 1)
    found = curves_document(probabilities, labels, "ab")

    false, true, thresholds = oracle.roc_curve(labels == 1, probabilities[:, 1], drop_intermediate=False)
    roc = found["roc"]["b"]
    assert false.tolist() == roc["false_positive_rate"]
    assert true.tolist() == roc["true_positive_rate"]
    assert [None, *thresholds[1:].tolist()] == roc["threshold"]
    precision, recall, thresholds = oracle.precision_recall_curve(labels == 1, probabilities[:, 1])
    pr = found["pr"]["b"]
    assert (precision[-2::-1].tolist(), recall[-2::-1].tolist()) == (pr["precision"], pr["recall"])
    assert thresholds[::-1].tolist() == pr["threshold"]


def test_thinned() -> None:
    """A long curve keeps its ends and at most 200 points, from which its area can be computed."""
    probabilities, labels = answers(2, 20_000)
    found = curves_document(probabilities, labels, "ab")

    for label, name in enumerate("ab"):
        roc, pr = found["roc"][name], found["pr"][name]
        assert MAX_POINTS >= max(len(points) for points in [*roc.values(), *pr.values()]) > MAX_POINTS / 2
        assert (0.0, 0.0) == (roc["false_positive_rate"][0], roc["true_positive_rate"][0])
        assert (1.0, 1.0) == (roc["false_positive_rate"][-1], roc["true_positive_rate"][-1])
        area = oracle.auc(roc["false_positive_rate"], roc["true_positive_rate"])
        assert oracle.roc_auc_score(labels == label, probabilities[:, label]) == pytest.approx(area, abs=1e-3)
        assert 1.0 == pr["recall"][-1]
    assert len(json.dumps(found, allow_nan=False)) < 60_000


def test_calibration() -> None:
    """The bins that have images are those of the calibration error."""
    probabilities = np.array([[0.99, 0.01], [0.97, 0.03], [0.4, 0.6]])
    calibration = curves_document(probabilities, np.array([0, 1, 1]), "ab")["calibration"]

    assert [1, 2] == calibration["images"]
    assert [1.0, 0.5] == calibration["accuracy"]
    assert [0.6, 0.98] == pytest.approx(calibration["confidence"])


def test_labels_without_a_curve() -> None:
    """A label that no image has, or that every image has, has no curve."""
    probabilities, labels = answers(3, 30)

    assert {"a", "b"} == set(curves_document(probabilities, labels % 2, "abc")["roc"])
    assert {} == curves_document(probabilities, labels * 0, "abc")["pr"]


def test_many_labels() -> None:
    """Of more than 50 labels, the 10 of the lowest F1 have curves."""
    probabilities, labels = answers(51, 3000)
    names = [str(number) for number in range(51)]
    f1 = oracle.f1_score(labels, probabilities.argmax(axis=1), average=None, labels=range(51))

    found = curves_document(probabilities, labels, names)

    assert {str(number) for number in np.argsort(f1, kind="stable")[:10]} == set(found["roc"]) == set(found["pr"])
