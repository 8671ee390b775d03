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
from job.training import augmentation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.config.settings import AugmentationSettings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.runtime.device import Device
    from job.training.augmentation import Numbers
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
    compute = FeaturePass(classifier, cache, state, progress)
    for rows, pixels in images.ingest(progress, check=check):
        cache.features[rows] = compute(pixels)[: rows.stop - rows.start]
    fill(images, cache, compute, progress)
    seconds = compute.seconds
    return statistics.median(seconds[1:] or seconds) / RANGE if seconds else None


def fill(images: Dataset, cache: Cache, compute: FeaturePass, progress: Progress) -> None:
    """Write the features of the ranges that lack them: they were discarded, since a batch did not fit."""
    while missing := [rows for rows in images.ranges() if not cache.features.has(rows)]:
        with progress.phase("features again", len(missing), "ranges") as phase:
            for rows in missing:
                cache.features[rows] = compute(images.range_pixels(rows))[: rows.stop - rows.start]
                phase.advance()


class FeaturePass:
    """Computes features in batches, halved until they fit into the device's memory; then all features are discarded.

    Args:
        classifier: with its pretrained weights, folded.
        cache: has the features.
        state: its `feature_batch` is the batch size; lowered if a batch does not fit.
        progress: receives the events.
        settings: of the augmentation; None: the images stay as they are.

    Attributes:
        seconds: that each call took.
    """

    def __init__(
        self,
        classifier: Classifier,
        cache: Cache,
        state: TrainingState,
        progress: Progress,
        settings: AugmentationSettings | None = None,
    ) -> None:
        self._classifier = classifier
        self._cache = cache
        self._state = state
        self._progress = progress
        self._settings = settings
        self._compiled_for = 0
        self.seconds: list[float] = []

    def __call__(self, pixels: NDArray[Any], numbers: Numbers | None = None) -> NDArray[Any]:
        """Return features, float32 [RANGE, feature_size], of uint8 [RANGE, size, size, 3] and what was drawn for them.

        Raises:
            errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
        """
        inputs, started = [pixels, *(numbers or ())], time.monotonic()
        features = memory.halve_until_it_fits(
            lambda batch_size: self._compute(inputs, batch_size),
            self._state.feature_batch or RANGE,
            work="the feature pass",
            halved=self._on_halved,
        )
        self.seconds.append(time.monotonic() - started)
        return features

    def _compute(self, inputs: list[NDArray[Any]], batch_size: int) -> NDArray[Any]:
        if self._compiled_for != batch_size:
            self._forward, self._compiled_for = self._compile(batch_size), batch_size
        starts = range(0, len(inputs[0]), batch_size)
        return np.concatenate([self._forward(*(array[n : n + batch_size] for array in inputs)).numpy() for n in starts])

    def _on_halved(self, batch_size: int) -> None:
        self._state.feature_batch = batch_size
        self._cache.clear_features(batch_size)
        self._progress.event("features.batch_halved", severity="warning", feature_batch=batch_size)

    def _compile(self, batch_size: int) -> Callable[..., tf.Tensor]:
        """Return the forward pass: uint8 [batch_size, size, size, 3] -> float32 [batch_size, feature_size].

        The batch size is fixed, so that the bits of a feature do not depend on the number of images.
        """
        classifier, settings = self._classifier, self._settings
        signature = [tf.TensorSpec((batch_size, classifier.image_size, classifier.image_size, 3), tf.uint8)]
        forward: Callable[..., tf.Tensor] = classifier.features
        if settings is not None:
            signature += [tf.TensorSpec((batch_size, *spec.shape[1:]), spec.dtype) for spec in augmentation.SPEC]

            def forward(pixels: tf.Tensor, *numbers: tf.Tensor) -> tf.Tensor:
                changed = augmentation.change_images(settings, pixels, augmentation.Numbers(*numbers))
                return classifier.features(changed)

        compiled: Callable[..., tf.Tensor] = tf.function(forward, input_signature=signature, autograph=False)
        return compiled
