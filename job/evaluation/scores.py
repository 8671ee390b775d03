"""What the model answers for the images that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.data import split
from job.data.dataset import RANGE
from job.training import stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.examples import Examples
    from job.training.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The kept model's answers for one side of the split.

    Attributes:
        split: "validation" or "test".
        rows: which images, int [n].
        probabilities: float32 [n, labels].
        loss: mean cross-entropy.
        accuracy: share of images whose most probable label is theirs.
    """

    split: str
    rows: NDArray[Any]
    probabilities: NDArray[Any]
    loss: float
    accuracy: float

    def document(self) -> dict[str, object]:
        """Return what metrics.json says of this side."""
        return {"accuracy": self.accuracy, "loss": self.loss, "images": len(self.rows)}


def score(
    classifier: Classifier,
    examples: Examples,
    rows_of: dict[str, NDArray[Any]],
    state: TrainingState,
    progress: Progress,
) -> dict[str, Scores]:
    """Score the held-out images: the validation side, and the test side where it has any.

    Args:
        classifier: with the weights that are published.
        examples: with pixels as inputs.
        rows_of: the split's name -> rows, int [n].
        state: its `predict_batch` bounds the images scored at once.
        progress: receives the events.
    """
    scores = {}
    for side in ("validation", "test"):
        if len(rows := rows_of[side]):
            with progress.phase(f"evaluate {side}", len(rows), "images") as phase:
                logits = stages.predict(examples, rows, RANGE, state, progress, phase.advance)
            loss, accuracy = stages.measure(classifier, logits, examples.labels[rows])
            with tf.device("CPU:0"):  # a GPU may not hold the logits of all images
                probabilities = classifier.probabilities(tf.constant(logits)).numpy()
            scores[side] = Scores(split=side, rows=rows, probabilities=probabilities, loss=loss, accuracy=accuracy)
    return scores


def held_out(scores: dict[str, Scores], images: Dataset, most: int) -> tuple[Iterator[bytes], NDArray[Any]]:
    """Return the bytes and the probabilities, float32 [n, labels], of at most `most` scored images, in hash order.

    The bytes are read one by one, since all of them may be more than memory holds.
    """
    rows = np.concatenate([side.rows for side in scores.values()])
    probabilities = np.concatenate([side.probabilities for side in scores.values()])
    chosen = np.argsort(split.hashes(images.manifest)[rows], kind="stable")[:most]
    return map(images.encoded, rows[chosen].tolist()), probabilities[chosen]
