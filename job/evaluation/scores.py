"""The model's predictions for the held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.data import split
from job.data.dataset import RANGE
from job.training import prediction

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
    """The published model's predictions for one split.

    Attributes:
        split: "validation" or "test".
        rows: of the manifest, int [n].
        probabilities: float32 [n, labels].
        loss: mean cross-entropy.
        accuracy: fraction of images whose most probable label is correct.
    """

    split: str
    rows: NDArray[Any]
    probabilities: NDArray[Any]
    loss: float
    accuracy: float

    def document(self) -> dict[str, object]:
        """Return the split's fields of metrics.json."""
        return {"accuracy": self.accuracy, "loss": self.loss, "images": len(self.rows)}


def score(
    classifier: Classifier,
    examples: Examples,
    rows_of: dict[str, NDArray[Any]],
    state: TrainingState,
    progress: Progress,
) -> dict[str, Scores]:
    """Score the held-out images: the validation split, and the test split unless it is empty.

    Args:
        classifier: with the weights to publish.
        examples: with pixels as inputs.
        rows_of: the split's name -> rows, int [n].
        state: its `predict_batch` limits the images scored at once.
        progress: receives the events.
    """
    scores = {}
    for name in ("validation", "test"):
        if len(rows := rows_of[name]):
            with progress.phase(f"evaluate {name}", len(rows), "images") as phase:
                logits = prediction.predict(examples, rows, RANGE, state, progress, phase.advance)
            loss, accuracy = prediction.measure(classifier, logits, examples.labels[rows])
            with tf.device("CPU:0"):  # the logits of all images may exceed the GPU's memory
                probabilities = classifier.probabilities(tf.constant(logits)).numpy()
            scores[name] = Scores(split=name, rows=rows, probabilities=probabilities, loss=loss, accuracy=accuracy)
    return scores


def verification_sample(scores: dict[str, Scores], images: Dataset, limit: int) -> tuple[Iterator[bytes], NDArray[Any]]:
    """Return the bytes and the probabilities, float32 [n, labels], of at most `limit` scored images, in hash order.

    The bytes are read lazily, since the images together may exceed the memory.
    """
    rows = np.concatenate([scored.rows for scored in scores.values()])
    probabilities = np.concatenate([scored.probabilities for scored in scores.values()])
    sample = np.argsort(split.hashes(images.manifest)[rows], kind="stable")[:limit]
    return map(images.encoded, rows[sample].tolist()), probabilities[sample]
