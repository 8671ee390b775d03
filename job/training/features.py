"""Features: the frozen base model's output for each image.

In stage 1 the base model is frozen and its BatchNormalization in inference mode, so that its output for an image never
changes: one forward pass over the data serves any number of epochs, with the same mathematics as the plain recipe.
"""

from __future__ import annotations

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


def depend_on(weights_digest: str, machine: Device, state: TrainingState) -> dict[str, object]:
    """Return what features depend on besides the pixels, as plain JSON."""
    return {"weights": weights_digest, "part": state.feature_batch, "device": machine.numerics()}


def extract(classifier: Classifier, images: Dataset, cache: Cache, state: TrainingState, progress: Progress) -> None:
    """Do the pass over the data, and write the features of every usable image to the cache.

    The last bits of a feature depend on how many images are computed at once. Where these do not fit into the device's
    memory, all features are computed in smaller parts, including those that were finished before.

    Args:
        classifier: with its pretrained weights, folded.
        images: the data, before the pass.
        cache: its `features`, float32 [images, feature_size], are written.
        state: its `feature_batch` is the number of images computed at once; lowered where they do not fit.
        progress: receives the events.

    Raises:
        errors.DeviceMemoryError: not even one image at a time fits into the device's memory.
    """
    forward = _compile(classifier, state.feature_batch or RANGE)

    def halved(part: int) -> None:
        nonlocal forward
        state.feature_batch, forward = part, _compile(classifier, part)
        cache.clear_features(part)
        progress.event("features.batch_halved", severity="warning", feature_batch=part)

    def in_parts(pixels: NDArray[Any], part: int) -> NDArray[Any]:
        return np.concatenate([forward(pixels[n : n + part]).numpy() for n in range(0, len(pixels), part)])

    def write(rows: slice, pixels: NDArray[Any]) -> None:
        features = memory.halve_until_it_fits(
            lambda part: in_parts(pixels, part),
            state.feature_batch or RANGE,
            work="the feature pass",
            halved=halved,
        )
        cache.features[rows] = features[: rows.stop - rows.start]

    for rows, pixels in images.ingest(progress):
        write(rows, pixels)
    while forgotten := [rows for rows in images.ranges() if not cache.features.has(rows)]:
        with progress.phase("features again", len(forgotten), "ranges") as phase:
            for rows in forgotten:
                write(rows, images.range_pixels(rows))
                phase.advance()


def _compile(classifier: Classifier, part: int) -> Callable[[NDArray[Any]], tf.Tensor]:
    """Return the forward pass of exactly `part` images: uint8 [part, size, size, 3] -> float32 [part, feature_size].

    One shape for all parts, so that the bits of a feature do not depend on how many images there are.
    """
    signature = tf.TensorSpec((part, classifier.image_size, classifier.image_size, 3), tf.uint8)
    compiled: Callable[[NDArray[Any]], tf.Tensor] = tf.function(
        classifier.features, input_signature=[signature], autograph=False
    )
    return compiled
