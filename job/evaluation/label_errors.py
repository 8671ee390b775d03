"""Suspected label errors, by confident learning (Northcutt et al., 2021, https://arxiv.org/abs/1911.00068, section 3).

The threshold of a label is the mean probability that the model gives the label on the images that carry it. An image
counts for the most probable of the labels whose thresholds it reaches. If that is another label than its own, and its
own is not the most probable one of all, its label may be wrong.

That holds for models that have not seen the image. The held-out images are judged by the published model, those of the
train split by heads that were trained without them (`job.training.cross_validation`); each group has thresholds of its
own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from job.data.manifest import Manifest
    from job.evaluation.scores import Scores

    Predict = Callable[[], Iterable[NDArray[Any]]]
    """Yields the probabilities, float32 [m, labels], of consecutive images."""

_ROUNDING = 1e-6
"""A probability reaches a threshold that it is below by less: the mean of equal probabilities may exceed them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """An image whose label may be wrong.

    Attributes:
        row: of the manifest.
        split: "train", "validation" or "test".
        suggested: number of the label that the image may have instead.
        probability: of the label that the image has.
        suggested_probability: of the other one.
    """

    row: int
    split: str
    suggested: int
    probability: float
    suggested_probability: float

    def document(self, manifest: Manifest) -> dict[str, object]:
        """Return the image's row of label_errors.jsonl."""
        return {
            "uri": manifest.uri(self.row),
            "split": self.split,
            "label": manifest.labels[manifest.label[self.row]],
            "suggested": manifest.labels[self.suggested],
            "probability": float(f"{self.probability:.9g}"),
            "suggested_probability": float(f"{self.suggested_probability:.9g}"),
        }


def find(labels: NDArray[Any], judged: NDArray[np.bool_], predict: Predict) -> dict[str, NDArray[Any]]:
    """Return the suspected label errors among images that the model has not seen.

    Args:
        labels: of the images, int [n].
        judged: bool [n], the images to judge. No others count for the thresholds.
        predict: yields the probabilities of all images. It is called twice, so that they need not be in memory
            together.

    Returns:
        "position", int64 [k], among the images; "suggested", int64 [k]; "probability" and "suggested_probability",
        float32 [k].
    """
    thresholds = _thresholds(labels, judged, predict)
    columns: dict[str, list[NDArray[Any]]] = {
        name: [np.empty(0, dtype)]
        for name, dtype in (
            ("position", np.int64),
            ("suggested", np.int64),
            ("probability", np.float32),
            ("suggested_probability", np.float32),
        )
    }
    start = 0
    for probabilities in predict():
        given = labels[start : start + len(probabilities)]
        confident = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1)
        suggested = confident.argmax(axis=1)
        is_suspect = (confident.max(axis=1) >= 0) & (suggested != given) & (probabilities.argmax(axis=1) != given)
        rows = np.flatnonzero(is_suspect & judged[start : start + len(probabilities)])
        columns["position"].append(start + rows)
        columns["suggested"].append(suggested[rows])
        columns["probability"].append(probabilities[rows, given[rows]])
        columns["suggested_probability"].append(probabilities[rows, suggested[rows]])
        start += len(probabilities)
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _thresholds(labels: NDArray[Any], judged: NDArray[np.bool_], predict: Predict) -> NDArray[np.float64]:
    """Return the mean self-confidence of each label, [labels]; infinite for a label that no judged image has."""
    sums = counts = np.zeros(0)
    start = 0
    for probabilities in predict():
        rows = np.flatnonzero(judged[start : start + len(probabilities)])
        given, size = labels[start + rows], probabilities.shape[1]
        sums = sums if len(sums) else np.zeros(size)
        counts = counts if len(counts) else np.zeros(size)
        sums += np.bincount(given, probabilities[rows, given], minlength=size)
        counts += np.bincount(given, minlength=size)
        start += len(probabilities)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(sums), np.inf), where=counts > 0)
    return means


def suspects(
    manifest: Manifest,
    rows_of: Mapping[str, NDArray[Any]],
    scores: Mapping[str, Scores],
    of_training: Mapping[str, NDArray[Any]],
) -> list[Suspect]:
    """Return all suspected label errors, the most suspicious first; equal ones in the order of their URIs.

    Args:
        manifest: the images.
        rows_of: the split's name -> rows of the manifest, int [n].
        scores: of the held-out images, by split.
        of_training: what `find` returned for the train split; empty if it was not examined.
    """
    held_out = np.concatenate([scored.rows for scored in scores.values()])
    splits = np.concatenate([np.full(len(scored.rows), name, object) for name, scored in scores.items()])
    found = find(
        manifest.label[held_out],
        np.ones(len(held_out), bool),
        lambda: (scored.probabilities for scored in scores.values()),
    )
    suspected = _suspects(found, held_out, splits)
    if of_training:
        train = rows_of["train"]
        suspected += _suspects(of_training, train, np.full(len(train), "train", object))
    return sorted(
        suspected,
        key=lambda suspect: (suspect.probability - suspect.suggested_probability, manifest.uri(suspect.row)),
    )


def summary(
    suspected: Sequence[Suspect], rows_of: Mapping[str, NDArray[Any]], reasons: Mapping[str, str]
) -> dict[str, Any]:
    """Return the field label_errors of metrics.json: the images and the suspects of each split.

    Args:
        suspected: all of them.
        rows_of: the split's name -> rows of the manifest, int [n].
        reasons: why a split was not examined.
    """
    counts = Counter(suspect.split for suspect in suspected)
    unavailable = {name: f"there are no {name} images" for name, rows in rows_of.items() if not len(rows)} | {**reasons}
    examined = {
        name: None if name in unavailable else {"images": len(rows), "suspected": counts[name]}
        for name, rows in rows_of.items()
    }
    return {**examined, "unavailable": unavailable}


def _suspects(found: Mapping[str, NDArray[Any]], rows: NDArray[Any], splits: NDArray[Any]) -> list[Suspect]:
    columns = (found[name].tolist() for name in ("position", "suggested", "probability", "suggested_probability"))
    return [
        Suspect(
            row=int(rows[position]),
            split=str(splits[position]),
            suggested=suggested,
            probability=probability,
            suggested_probability=suggested_probability,
        )
        for position, suggested, probability, suggested_probability in zip(*columns, strict=True)
    ]
