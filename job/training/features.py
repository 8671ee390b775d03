"""Features: the frozen base model's output for each image.

In stage 1 the base model is frozen and its BatchNormalization is in inference mode, so its output for an image never
changes: one forward pass over the data serves all epochs and is mathematically equivalent to the plain recipe.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.data.dataset import RANGE
from job.runtime import memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.runtime.device import Device
    from job.training.state import TrainingState


def dependencies(weights_digest: str, machine: Device, state: TrainingState) -> dict[str, object]:
    """Return everything that features depend on besides the pixels, as plain JSON."""
    return {"weights": weights_digest, "part": state.feature_batch, "device": machine.numerics()}


def extract(
    classifier: Classifier,
    images: Dataset,
    cache: Cache,
    state: TrainingState,
    progress: Progress,
    *,
    check: Callable[[], object] = int,
) -> float | None:
    """Make the pass over the data, and write the features of every usable image to the cache.

    The last bits of a feature depend on the batch size. If a batch does not fit into the device's memory, all features
    are computed in smaller batches, including those already computed.

    Args:
        classifier: with its pretrained weights, folded.
        images: the data, before the pass.
        cache: its `features`, float32 [images, feature_size], are written.
        state: its `feature_batch` is the batch size; lowered if a batch does not fit.
        progress: receives the events.
        check: called after each image; what it raises ends the pass.

    Returns:
        The seconds that an image took; None if no features were computed. The first range is not counted, since its
        graph is compiled, unless it is the only one.

    Raises:
        errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
    """
    seconds: list[float] = []
    forward = _compile(classifier, state.feature_batch or RANGE)

    def on_halved(batch_size: int) -> None:
        nonlocal forward
        state.feature_batch, forward = batch_size, _compile(classifier, batch_size)
        cache.clear_features(batch_size)
        progress.event("features.batch_halved", severity="warning", feature_batch=batch_size)

    def compute(pixels: NDArray[Any], batch_size: int) -> NDArray[Any]:
        return np.concatenate([forward(pixels[n : n + batch_size]).numpy() for n in range(0, len(pixels), batch_size)])

    def write(rows: slice, pixels: NDArray[Any]) -> None:
        started = time.monotonic()
        features = memory.halve_until_it_fits(
            lambda batch_size: compute(pixels, batch_size),
            state.feature_batch or RANGE,
            work="the feature pass",
            halved=on_halved,
        )
        cache.features[rows] = features[: rows.stop - rows.start]
        seconds.append(time.monotonic() - started)

    for rows, pixels in images.ingest(progress, check=check):
        write(rows, pixels)
    while missing := [rows for rows in images.ranges() if not cache.features.has(rows)]:
        with progress.phase("features again", len(missing), "ranges") as phase:
            for rows in missing:
                write(rows, images.range_pixels(rows))
                phase.advance()
    return statistics.median(seconds[1:] or seconds) / RANGE if seconds else None


def _compile(classifier: Classifier, batch_size: int) -> Callable[[NDArray[Any]], tf.Tensor]:
    """Return the forward pass: uint8 [batch_size, size, size, 3] -> float32 [batch_size, feature_size].

    The batch size is fixed, so that the bits of a feature do not depend on the number of images.
    """
    signature = tf.TensorSpec((batch_size, classifier.image_size, classifier.image_size, 3), tf.uint8)
    compiled: Callable[[NDArray[Any]], tf.Tensor] = tf.function(
        classifier.features, input_signature=[signature], autograph=False
    )
    return compiled
