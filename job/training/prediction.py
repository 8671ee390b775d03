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
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.examples import Examples
    from job.training.state import TrainingState

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
    batch_size = min(batch_size, state.predict_batch or batch_size)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]

    def on_halved(images: int) -> None:
        state.predict_batch = images
        progress.event("prediction.batch_halved", severity="warning", predict_batch=images)

    def predict_in_parts(inputs: NDArray[Any], images: int) -> NDArray[Any]:
        starts = range(0, len(inputs), images)
        return np.concatenate([examples.predict(inputs[start : start + images]).numpy() for start in starts])

    logits = []
    for inputs, _ in prefetch(examples.inputs, batches):
        images = min(batch_size, state.predict_batch or batch_size)
        compute = functools.partial(predict_in_parts, inputs)
        logits.append(memory.halve_until_it_fits(compute, images, work="validation and evaluation", halved=on_halved))
        after_batch(len(inputs))
    return np.concatenate(logits)


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
