"""Predictions of the model during training and evaluation, with their loss and accuracy."""

from __future__ import annotations

import functools
import itertools
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tensorflow as tf

from job.runtime import memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.examples import Examples
    from job.training.state import TrainingState
    from job.training.strategy import Replicas

_Batch = TypeVar("_Batch")
_Inputs = TypeVar("_Inputs")


def predict(
    examples: Examples,
    rows: NDArray[Any],
    batch_size: int,
    state: TrainingState,
    progress: Progress,
    after_batch: Callable[[int], object],
) -> NDArray[Any]:
    """Return the logits, float32 [n, outputs], of `rows`, int [n], in the same order.

    Args:
        examples: provide the inputs and the logits.
        rows: of the manifest.
        batch_size: images per batch.
        state: its `predict_batch` limits the batch size; lowered if a batch does not fit into the device's memory.
        progress: receives the events.
        after_batch: called with the number of images after each batch.

    Raises:
        errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
    """
    replicas = examples.replicas
    devices = 1 if replicas is None else replicas.total
    at_once = min(-(-batch_size // devices), state.predict_batch or batch_size)
    batches = [rows[start : start + at_once * devices] for start in range(0, len(rows), at_once * devices)]

    def load(batch: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the inputs of each device of this process."""
        if replicas is None:
            return [examples.inputs(batch)]
        return [examples.inputs(batch[part.rows]) for part in replicas.local_parts(len(batch))]

    def on_halved(images: int) -> None:
        state.predict_batch = images
        progress.event("prediction.batch_halved", severity="warning", predict_batch=images)

    logits = []
    for batch, (inputs, _) in zip(batches, prefetch(load, batches), strict=True):
        images = min(at_once, state.predict_batch or at_once)
        if replicas is None:
            compute = functools.partial(_predict_in_parts, examples, inputs[0])
        else:
            compute = functools.partial(_predict_on_replicas, examples, replicas, inputs, len(batch))
        logits.append(memory.halve_until_it_fits(compute, images, work="validation and evaluation", halved=on_halved))
        after_batch(len(batch))
    return np.concatenate(logits)


def _predict_in_parts(examples: Examples, inputs: NDArray[Any], images: int) -> NDArray[Any]:
    starts = range(0, len(inputs), images)
    return np.concatenate([examples.predict(inputs[start : start + images]).numpy() for start in starts])


def _predict_on_replicas(
    examples: Examples, replicas: Replicas, inputs: Sequence[NDArray[Any]], total: int, images: int
) -> NDArray[Any]:
    """Return the logits of a batch, float32 [total, outputs], in every process.

    Args:
        examples: provide the logits.
        replicas: of which each computes its part.
        inputs: of the parts of this process's replicas.
        total: images of the batch.
        images: that a replica computes at once.
    """
    columns: list[list[NDArray[Any]]] = [[] for _ in inputs]

    def compute() -> NDArray[Any]:
        for start in range(0, max(map(len, inputs)), images):
            pieces = [[part[start : start + images] if start < len(part) else part[:1]] for part in inputs]
            for column, [logits] in zip(columns, examples.predict_on_replicas(pieces), strict=True):
                column.append(logits.numpy())
        return np.zeros(0)

    replicas.agreed(compute, 0)
    logits = np.zeros((total, columns[0][0].shape[1]), np.float32)
    for part, column in zip(replicas.local_parts(total), columns, strict=True):
        if not part.is_padding:
            logits[part.rows] = np.concatenate(column)[: part.rows.stop - part.rows.start]
    return replicas.sum(logits).astype(np.float32)  # the other processes' logits, to which this one adds zeros


def measure(
    classifier: Classifier, logits: NDArray[Any], labels: NDArray[Any], class_weights: NDArray[Any] | None = None
) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy.

    Args:
        classifier: of the labels.
        logits: float32 [n, outputs].
        labels: int32 [n].
        class_weights: of the cross-entropy, as in training; the divisor is the number of images, as there. The accuracy
            is not weighted.
    """
    with tf.device("CPU:0"):  # the logits of all images may exceed the GPU's memory
        losses = classifier.losses(tf.constant(logits), tf.constant(labels), class_weights=class_weights).numpy()
        correct = classifier.predictions(tf.constant(logits)).numpy() == labels
    return float(losses.mean(dtype=np.float64)), float(correct.mean())


def prefetch(load: Callable[[_Batch], _Inputs], batches: Iterable[_Batch]) -> Iterator[tuple[_Inputs, float]]:
    """Load the inputs of the batches in a background thread, two batches ahead.

    Args:
        load: returns the inputs of a batch.
        batches: each is taken in the caller's thread, when it is to be loaded.

    Yields:
        The inputs, and the seconds spent waiting for them.
    """
    remaining = iter(batches)
    with ThreadPoolExecutor(1, "prefetch") as pool:
        ahead = deque(pool.submit(load, batch) for batch in itertools.islice(remaining, 2))
        while ahead:
            started = time.monotonic()
            inputs = ahead.popleft().result()
            ahead.extend(pool.submit(load, batch) for batch in itertools.islice(remaining, 1))
            yield inputs, time.monotonic() - started
