"""Another labelled set, scored by a published model: its images under the model's labels, and its metrics."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from job.data.labels import join_names
from job.errors import DataError
from job.evaluation import caveats, curves, documents, metrics, splits
from job.evaluation.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from job.data.manifest import Manifest

SPLIT = "test"
"""What the set is to the model: the name under which the documents have it."""

Document = dict[str, Any]


def relabel(listed: Manifest, names: Sequence[str], *, ignore_unknown: bool) -> tuple[Manifest, dict[str, int]]:
    """Return the images with the model's labels, matched by name; and unknown label -> images left out.

    Args:
        listed: as the input names them.
        names: the model's labels.
        ignore_unknown: leave images of other labels out.

    Raises:
        errors.DataError: there are images of other labels, or of no other labels alone.
    """
    number = {name: position for position, name in enumerate(names)}
    counts = np.bincount(listed.label, minlength=len(listed.labels)).tolist()
    unknown = {label: count for label, count in zip(listed.labels, counts, strict=True) if label not in number}
    remedy = f"the model knows {join_names(names)}: rename the classes to match"
    if len(unknown) == len(listed.labels):
        raise DataError(f"the model knows none of the labels of the set: {join_names(list(unknown))}", remedy=remedy)
    if unknown and not ignore_unknown:
        raise DataError(
            f"the model does not know {join_names(list(unknown))}: {sum(unknown.values()):,} of {len(listed):,} images",
            remedy=f"{remedy}, or give --ignore-unknown to measure the others alone",
        )
    new_number = np.array([number.get(label, -1) for label in listed.labels], np.int32)
    kept = listed.take(np.flatnonzero(new_number[listed.label] >= 0))
    return dataclasses.replace(kept, labels=tuple(names), label=new_number[kept.label]), unknown


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """A set that was scored.

    Attributes:
        images: the usable ones, at least one, with the model's labels.
        probabilities: float32 [images, labels].
    """

    images: Manifest
    probabilities: NDArray[Any]

    @property
    def answers(self) -> documents.Answers:
        """The probabilities and the true labels, as the documents take them."""
        return {SPLIT: (self.probabilities, self.images.label)}

    def metrics(self, run_metrics: Mapping[str, Any], *, seed: int) -> Document:
        """Return the fields of metrics.json about the set; missing values are null.

        Args:
            run_metrics: metrics.json of the run; its threshold is applied to the set.
            seed: of the bootstrap.
        """
        names, labels = self.images.labels, self.images.label
        found = splits.split_document(self.probabilities, labels, names, seed, split=SPLIT)
        found["loss"] = found["log_loss"]  # of the probabilities: a SavedModel has no logits
        majority = int(np.bincount(labels, minlength=len(names)).argmax())
        document: Document = {
            "validation": None,
            SPLIT: found,
            "majority": {"label": names[majority], "validation": None, SPLIT: float((labels == majority).mean())},
            "threshold": self._at_threshold(run_metrics.get("threshold")),
        }
        return document | {"warnings": caveats.find_in(document, SPLIT)}

    def curves(self) -> Document:
        """Return curves.json."""
        return {"validation": None, SPLIT: curves.curves_document(*self.answers[SPLIT], self.images.labels)}

    def confusion(self) -> Iterator[str]:
        """Yield the lines of confusion.csv."""
        return documents.confusion_csv(self.answers, self.images.labels)

    def predictions(self) -> Iterator[str]:
        """Yield the lines of predictions.csv."""
        rows = np.arange(len(self.images))
        accuracy = float((self.probabilities.argmax(axis=1) == self.images.label).mean())
        scores = Scores(split=SPLIT, rows=rows, probabilities=self.probabilities, loss=math.nan, accuracy=accuracy)
        return documents.predictions_csv(self.images, {SPLIT: scores})

    def _at_threshold(self, threshold: Any) -> Document | None:
        """Return what the run's threshold gives on the set; None if the run has none."""
        if not isinstance(threshold, dict) or threshold.get("value") is None:
            return None
        label = self.images.labels.index(threshold["label"])
        predicted = (self.probabilities[:, label] >= threshold["value"]).astype(int)
        table = metrics.counts_by_label((self.images.label == label).astype(int), predicted, 2)
        row = {name: float(table[name][1]) for name in ("precision", "recall", "f1")}
        found = {name: None if math.isnan(number) else number for name, number in row.items()}
        return {"label": threshold["label"], "value": threshold["value"], "validation": None, SPLIT: found}
