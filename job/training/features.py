"""Features: the frozen base model's output for each image.

In stage 1 the base model is frozen and its BatchNormalization is in inference mode, so its output for an image never
changes: one forward pass over the data serves all epochs and is mathematically equivalent to the plain recipe.

With `fine_tuning.cache_frozen` the same pass writes the outputs of the part that stage 2 keeps frozen, too.
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
    from collections.abc import Callable, Sequence

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


def frozen_dependencies(classifier: Classifier) -> dict[str, object]:
    """Return what the outputs of the frozen part depend on besides what features do, and their shape, as plain JSON.

    Empty if none are cached.
    """
    part = classifier.frozen_part
    return {"from_layer": part.from_layer, "shape": list(part.shape)} if part else {}


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
        cache: its `features` are written if it needs any, and its `frozen` if it has any.
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
        _store(cache, rows, compute(pixels))
    fill(images, cache, compute, progress)
    seconds = compute.seconds
    return statistics.median(seconds[1:] or seconds) / RANGE if seconds else None


def fill(images: Dataset, cache: Cache, compute: FeaturePass, progress: Progress) -> None:
    """Compute the ranges that were discarded, since a batch did not fit."""
    while missing := [rows for rows in images.ranges() if not cache.has_computed(rows)]:
        with progress.phase("features again", len(missing), "ranges") as phase:
            for rows in missing:
                _store(cache, rows, compute(images.range_pixels(rows)))
                phase.advance()


def _store(cache: Cache, rows: slice, computed: Sequence[NDArray[Any]]) -> None:
    """Write what the feature pass computed of consecutive rows; a range has as many rows as a whole one."""
    parts = [*([cache.features] if cache.needs_features else []), *([] if cache.frozen is None else [cache.frozen])]
    for part, values in zip(parts, computed, strict=True):
        part[rows] = values[: rows.stop - rows.start]


class FeaturePass:
    """Computes features, and the outputs of the frozen part if the cache has any, in batches.

    Batches are halved until they fit into the device's memory; then all that was computed is discarded.

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

    def __call__(self, pixels: NDArray[Any], numbers: Numbers | None = None) -> list[NDArray[Any]]:
        """Return what the cache needs of a range of images, float32 [RANGE, ...]: features, if any, and frozen outputs.

        Of augmented images these are the features alone.

        Args:
            pixels: uint8 [RANGE, size, size, 3].
            numbers: drawn for the images; None: they stay as they are.

        Raises:
            errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
        """
        inputs, started = [pixels, *(numbers or ())], time.monotonic()
        computed = memory.halve_until_it_fits(
            lambda batch_size: self._compute(inputs, batch_size),
            self._state.feature_batch or RANGE,
            work="the feature pass",
            halved=self._on_halved,
        )
        self.seconds.append(time.monotonic() - started)
        return computed

    def _compute(self, inputs: list[NDArray[Any]], batch_size: int) -> list[NDArray[Any]]:
        if self._compiled_for != batch_size:
            self._forward, self._compiled_for = self._compile(batch_size), batch_size
        starts = range(0, len(inputs[0]), batch_size)
        batches = [self._forward(*(array[n : n + batch_size] for array in inputs)) for n in starts]
        return [np.concatenate(tensors) for tensors in zip(*batches, strict=True)]

    def _on_halved(self, batch_size: int) -> None:
        self._state.feature_batch = batch_size
        self._cache.clear_features(batch_size)
        self._progress.event("features.batch_halved", severity="warning", feature_batch=batch_size)

    def _compile(self, batch_size: int) -> Callable[..., list[tf.Tensor]]:
        """Return the forward pass: uint8 [batch_size, size, size, 3] -> what `__call__` returns.

        The batch size is fixed, so that the bits of a feature do not depend on the number of images.
        """
        classifier, cache, settings = self._classifier, self._cache, self._settings
        signature = [tf.TensorSpec((batch_size, classifier.image_size, classifier.image_size, 3), tf.uint8)]

        def forward(pixels: tf.Tensor, *numbers: tf.Tensor) -> list[tf.Tensor]:
            if settings is not None:
                return [
                    classifier.features(augmentation.change_images(settings, pixels, augmentation.Numbers(*numbers)))
                ]
            if cache.frozen is None:
                return [classifier.features(pixels)]
            frozen = classifier.frozen_maps(pixels)
            return [*([classifier.trained_features(frozen)] if cache.needs_features else []), frozen]

        if settings is not None:
            signature += [tf.TensorSpec((batch_size, *spec.shape[1:]), spec.dtype) for spec in augmentation.SPEC]
        compiled: Callable[..., list[tf.Tensor]] = tf.function(forward, input_signature=signature, autograph=False)
        return compiled
