"""What metrics.json has of a split: equal to scikit-learn's metrics, and a reason for each null."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle

from job.evaluation import metrics_schema
from job.evaluation.splits import compared, confusion_rows, split_document


def answers(labels: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, float32 [images, labels], and true labels, of which each has images."""
    random = np.random.default_rng(images)
    return random.dirichlet(np.ones(labels), images).astype(np.float32), np.arange(images) % labels


def nulls(value: Any, path: str = "") -> set[str]:
    """Return the paths of all null values."""
    if isinstance(value, dict):
        return set().union(*(nulls(inner, f"{path}.{name}".strip(".")) for name, inner in value.items()), set())
    return {path} if value is None else set()


@pytest.mark.parametrize("total", [2, 5])
def test_metrics(total: int) -> None:
    """The metrics of all labels together are scikit-learn's: macro averages over one-vs-rest areas."""
    probabilities, labels = answers(total, 200)
    names, predictions = [f"label {number}" for number in range(total)], probabilities.argmax(axis=1)
    one_hot = np.eye(total)[labels]
    wide = probabilities.astype(np.float64)
    if total == 2:
        one_hot, wide = one_hot[:, 1], wide[:, 1]

    found = split_document(probabilities, labels, names, 7)

    assert {
        "images": 200,
        "accuracy": oracle.accuracy_score(labels, predictions),
        "balanced_accuracy": oracle.balanced_accuracy_score(labels, predictions),
        "roc_auc": oracle.roc_auc_score(one_hot, wide, average="macro"),
        "pr_auc": oracle.average_precision_score(one_hot, wide, average="macro"),
    } == pytest.approx(
        {name: found[name] for name in ("images", "accuracy", "balanced_accuracy", "roc_auc", "pr_auc")}, rel=1e-12
    )
    expected = oracle.confusion_matrix(labels, predictions).tolist()
    assert {"labels": names, "counts": expected} == found["confusion"]
    assert names == list(found["labels"])
    metrics_schema.Split.model_validate_json(json.dumps(found | {"loss": 0.5}, allow_nan=False))


@pytest.mark.parametrize(
    ("total", "present", "predicted"),
    [(2, [0], [0]), (2, [1], [1]), (2, [0], [1]), (2, [0, 1], [0]), (4, [2], [1]), (4, [0, 1], [0, 3]), (4, [3], [3])],
)
def test_reasons(total: int, present: list[int], predicted: list[int]) -> None:
    """For any labels and predictions, each null has a reason, each reason a null, and no number is NaN."""
    labels = np.resize(present, 12)
    probabilities = np.eye(total, dtype=np.float32)[np.resize(predicted, 12)]

    found = split_document(probabilities, labels, "abcd"[:total], 7, split="test")

    json.dumps(found, allow_nan=False)
    assert nulls(found) == set(found["unavailable"])
    if total == 2 and present == [0]:
        assert "every test image has the label" == found["unavailable"]["labels.a.roc_auc"]
        assert "no test image has the label" == found["unavailable"]["labels.b.recall"]


def test_areas_of_absent_labels_are_left_out_of_the_mean() -> None:
    """Of more than two labels, those that no image has do not count."""
    probabilities, labels = answers(4, 60)
    labels = labels % 3

    found = split_document(probabilities, labels, "abcd", 7)

    areas = [found["labels"][name]["roc_auc"] for name in "abc"]
    assert np.mean(areas) == pytest.approx(found["roc_auc"])
    assert {"labels.d.recall", "labels.d.roc_auc", "labels.d.pr_auc"} <= set(found["unavailable"])


def test_confused() -> None:
    """The most frequent confusions come first; of equal ones, the first in the order of the labels."""
    labels = np.array([0, 0, 0, 1, 2, 2, 2, 2])
    probabilities = np.eye(3, dtype=np.float32)[[0, 2, 1, 0, 1, 1, 2, 0]]

    expected = [("c", "b", 2), ("a", "b", 1), ("a", "c", 1), ("b", "a", 1), ("c", "a", 1)]
    found = split_document(probabilities, labels, "abc", 7)["confused"]

    assert expected == [(one["label"], one["prediction"], one["images"]) for one in found]


@pytest.mark.parametrize(("total", "has_matrix"), [(50, True), (51, False)])
def test_many_labels(total: int, has_matrix: bool) -> None:
    """Over 50 labels the matrix is left to confusion.csv, and the 50 most frequent confusions are listed."""
    probabilities, labels = answers(total, 20 * total)
    found = split_document(probabilities, labels, [str(number) for number in range(total)], 7)

    assert has_matrix == (found["confusion"] is not None)
    assert has_matrix != ("confusion" in found["unavailable"])
    assert 50 == len(found["confused"])
    images = [one["images"] for one in found["confused"]]
    assert images == sorted(images, reverse=True)


def test_intervals_contain_the_metric() -> None:
    """Each interval contains its metric, is that of the seed, and exists for the areas of two labels only."""
    probabilities, labels = answers(2, 300)
    found, again, other = (split_document(probabilities, labels, "ab", seed)["intervals"] for seed in (7, 7, 8))
    document = split_document(probabilities, labels, "ab", 7)

    assert found == again != other
    for name in ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "pr_auc"):
        low, high = found[name]
        assert low < document[name] < high
    assert split_document(*answers(3, 30), "abc", 7)["intervals"]["roc_auc"] is None


def test_compared_models_are_measured_alike() -> None:
    """The metrics of the ablation are those of the split."""
    probabilities, labels = answers(3, 40)

    assert compared(probabilities, labels).items() <= split_document(probabilities, labels, "abc", 7).items()


def test_confusion_rows() -> None:
    """They are scikit-learn's matrix, with rows of zeros for labels without images."""
    _, labels = answers(3, 40)
    predictions = np.roll(labels, 7)

    found = np.stack(list(confusion_rows(labels, predictions, 5)))

    assert oracle.confusion_matrix(labels, predictions, labels=range(5)).tolist() == found.tolist()
