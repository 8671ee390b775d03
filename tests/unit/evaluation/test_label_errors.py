"""Confident learning, against cases computed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from listed_inputs import put, read_from

from job.evaluation.label_errors import Suspect, find, summary, suspects
from job.evaluation.scores import Scores

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def found(labels: list[int], probabilities: object, judged: list[bool] | None = None) -> dict[str, list[float]]:
    """Return what is found among images, whose probabilities come in two parts."""
    given, values = np.array(labels), np.array(probabilities, np.float32)
    mask = np.array(judged or [True] * len(labels))
    return {name: column.tolist() for name, column in find(given, mask, lambda: iter([values[:2], values[2:]])).items()}


def test_two_labels_by_hand() -> None:
    """The thresholds are 0.6 = (0.9 + 0.8 + 0.1) / 3 and 0.65 = (0.8 + 0.5) / 2: only the third image is suspected.

    The last one reaches no threshold, though its label is not the more probable one.
    """
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.5, 0.5]]

    assert found([0, 0, 0, 1, 1], probabilities) == {
        "position": [2],
        "suggested": [1],
        "probability": [np.float32(0.1)],
        "suggested_probability": [np.float32(0.9)],
    }


def test_three_labels_by_hand() -> None:
    """The thresholds are 0.5, 0.3 and 0.6. An image counts for the most probable of the labels it reaches.

    The fourth image's most probable label is its own: it is not suspected, though it reaches the threshold of another
    only. The second reaches two thresholds, and the larger probability counts.
    """
    probabilities = [
        [0.7, 0.2, 0.1],  # label 0
        [0.3, 0.6, 0.1],  # label 0: reaches that of label 1
        [0.0, 0.2, 0.8],  # label 1: reaches that of label 2
        [0.35, 0.4, 0.25],  # label 1: its own
        [0.35, 0.25, 0.4],  # label 2: reaches none, and its own is the most probable
        [0.1, 0.1, 0.8],  # label 2
    ]

    seen = found([0, 0, 1, 1, 2, 2], probabilities)

    assert ([1, 2], [1, 2]) == (seen["position"], seen["suggested"])


def test_own_label_is_the_most_probable_one() -> None:
    """An image whose label is the most probable one is no suspect, even if it reaches the threshold of another only.

    The thresholds are 0.795 and 0.25: the second image reaches that of label 1 alone, and the last that of label 0.
    """
    probabilities = [[0.99, 0.01], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]]

    assert [3] == found([0, 0, 1, 1], probabilities)["position"]


def test_thresholds_are_reached_by_equal_probabilities() -> None:
    """Where all images of a label have one probability, their mean is reached, however it is rounded."""
    alike = [[0.1, 0.9]] * 11 + [[0.1, 0.9]]

    seen = found([1] * 11 + [0], alike)

    assert [11] == seen["position"]


def test_images_that_are_not_judged() -> None:
    """An image that is not judged is no suspect, and does not count for the threshold of its label."""
    probabilities = [[0.9, 0.1], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    labels = [0, 0, 1, 1]

    assert [1] == found(labels, probabilities)["position"]
    assert [] == found(labels, probabilities, [True, False, True, True])["position"]


def test_absent_label() -> None:
    """A label that no image has is never suggested."""
    assert [] == found([0, 0, 0], [[0.1, 0.9], [0.8, 0.2], [0.7, 0.3]])["position"]


def scored(split: str, rows: list[int], probabilities: list[list[float]]) -> Scores:
    """Return the scores of a split."""
    values: NDArray[np.float32] = np.array(probabilities, np.float32)
    return Scores(split=split, rows=np.array(rows), probabilities=values, loss=0.5, accuracy=0.5)


def test_suspects_of_all_splits(tmp_path: Path) -> None:
    """The most suspicious come first, those of the train split among the held-out ones; equal ones by their URIs."""
    manifest, _ = read_from(put(tmp_path, [f"{'ab'[n // 4]}/{n}.jpg" for n in range(8)]))
    scores = {
        "validation": scored("validation", [0, 1, 4, 5], [[0.2, 0.8], [0.9, 0.1], [0.1, 0.9], [0.3, 0.7]]),
        "test": scored("test", [6], [[0.9, 0.1]]),
    }
    of_training = {
        "position": np.array([0, 1]),
        "suggested": np.array([1, 0]),
        "probability": np.float32([0.1, 0.2]),
        "suggested_probability": np.float32([0.9, 0.8]),
    }
    rows_of = {"train": np.array([3, 7]), "validation": np.array([0, 1, 4, 5]), "test": np.array([6])}

    seen = suspects(manifest, rows_of, scores, of_training)

    assert [(3, "train"), (6, "test"), (0, "validation"), (7, "train")] == [(s.row, s.split) for s in seen]
    assert {
        "uri": manifest.uri(6),
        "split": "test",
        "label": "b",
        "suggested": "a",
        "probability": 0.1,
        "suggested_probability": 0.9,
    } == {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in seen[1].document(manifest).items()
    }
    assert [6, 0] == [suspect.row for suspect in suspects(manifest, rows_of, scores, {})]


def test_summary() -> None:
    """Each split has its images and its suspects; a split that was not examined has the reason."""
    rows_of = {"train": np.arange(5), "validation": np.arange(3), "test": np.arange(0)}
    suspected = [Suspect(row=1, split="validation", suggested=0, probability=0.1, suggested_probability=0.9)]

    complete = summary(suspected, rows_of, {})
    partial = summary(suspected, rows_of, {"train": "no features"})

    assert {"images": 5, "suspected": 0} == complete["train"]
    assert {"images": 3, "suspected": 1} == complete["validation"]
    assert complete["test"] is None
    assert {"test": "there are no test images"} == complete["unavailable"]
    assert partial["train"] is None
    assert {"test": "there are no test images", "train": "no features"} == partial["unavailable"]
