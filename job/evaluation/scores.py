"""The model's predictions for the held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.data import split
from job.data.dataset import RANGE
from job.evaluation.gates import HeldOut
from job.training import prediction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.config.settings import StageName
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.examples import Examples
    from job.training.state import Arrays, TrainingState


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The published model's predictions for one split.

    Attributes:
        split: "validation" or "test".
        rows: of the manifest, int [n].
        probabilities: float32 [n, labels].
        loss: mean cross-entropy, of the logits.
        accuracy: fraction of images whose most probable label is correct.
    """

    split: str
    rows: NDArray[Any]
    probabilities: NDArray[Any]
    loss: float
    accuracy: float


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
            labels = examples.labels[rows]
            logits = _predict(examples, rows, state, progress, name)
            loss, _ = prediction.measure(classifier, logits, labels)
            probabilities = _probabilities(classifier, logits)
            # note: of the probabilities, so that predictions.csv gives the same; near ties can differ from the logits'
            accuracy = float((probabilities.argmax(axis=1) == labels).mean())
            scores[name] = Scores(split=name, rows=rows, probabilities=probabilities, loss=loss, accuracy=accuracy)
    return scores


def score_stage_ends(
    classifier: Classifier,
    ends: dict[StageName, Arrays],
    published: Scores,
    examples: Examples,
    state: TrainingState,
    progress: Progress,
) -> dict[StageName, NDArray[Any]]:
    """Score the validation images with the model at the end of each stage, for the ablation.

    Args:
        classifier: with the weights to publish, which it has afterwards too.
        ends: the weights at the end of each stage. Those that are published are not scored again.
        published: of the published model.
        examples: with pixels as inputs.
        state: see `score`.
        progress: receives the events.

    Returns:
        The probabilities, float32 [n, labels], by stage.
    """
    weights = classifier.state()
    probabilities = {}
    for stage, end in ends.items():
        if all(np.array_equal(value, weights[path]) for path, value in end.items()):
            probabilities[stage] = published.probabilities
            continue
        classifier.load_state(end)
        logits = _predict(examples, published.rows, state, progress, stage)
        probabilities[stage] = _probabilities(classifier, logits)
    classifier.load_state(weights)
    return probabilities


def _predict(
    examples: Examples, rows: NDArray[Any], state: TrainingState, progress: Progress, name: str
) -> NDArray[Any]:
    """Return the logits of `rows`; the phase is named "evaluate" and `name`."""
    with progress.phase(f"evaluate {name}", len(rows), "images") as phase:
        return prediction.predict(examples, rows, RANGE, state, progress, phase.advance)


def _probabilities(classifier: Classifier, logits: NDArray[Any]) -> NDArray[Any]:
    with tf.device("CPU:0"):  # the logits of all images may exceed the GPU's memory
        probabilities: NDArray[Any] = classifier.probabilities(tf.constant(logits)).numpy()
    return probabilities


def held_out(scores: Scores, images: Dataset) -> HeldOut:
    """Return the images of a split and their predictions, in hash order."""
    manifest = images.manifest
    order = np.argsort(split.hashes(manifest)[scores.rows], kind="stable")
    rows = scores.rows[order]
    return HeldOut(
        labels=manifest.labels,
        content=manifest.content_keys()[rows],
        label=manifest.label[rows],
        prediction=scores.probabilities[order].argmax(axis=1),
        encoded=lambda position: images.encoded(int(rows[position])),
    )


def verification_sample(scores: dict[str, Scores], images: Dataset, limit: int) -> tuple[Iterator[bytes], NDArray[Any]]:
    """Return the bytes and the probabilities, float32 [n, labels], of at most `limit` scored images, in hash order.

    The bytes are read lazily, since the images together may exceed the memory.
    """
    rows = np.concatenate([scored.rows for scored in scores.values()])
    probabilities = np.concatenate([scored.probabilities for scored in scores.values()])
    sample = np.argsort(split.hashes(images.manifest)[rows], kind="stable")[:limit]
    return map(images.encoded, rows[sample].tolist()), probabilities[sample]
