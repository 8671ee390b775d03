"""Features: the frozen base model's output for each image.

In stage 1 the base model is frozen and its BatchNormalization is in inference mode, so its output for an image never
changes: one forward pass over the data serves all epochs and is mathematically equivalent to the plain recipe.

With `fine_tuning.cache_frozen` the same pass writes the outputs of the part that stage 2 keeps frozen, too.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tensorflow as tf

from job.data.dataset import RANGE
from job.runtime import memory
from job.training import augmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from job.config.settings import AugmentationSettings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.runtime.device import Device
    from job.training.state import TrainingState
    from job.training.strategy import Replicas

_Range = TypeVar("_Range")


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
    replicas: Replicas | None = None,
) -> float | None:
    """Make the pass over the data, and write the features of every usable image of the own share to the cache.

    The last bits of a feature depend on the batch size. If a batch does not fit into the device's memory, all features
    are computed in smaller batches, including those already computed; and those of all workers, if one of them has less
    memory.

    Args:
        classifier: with its pretrained weights, folded.
        images: the data, before the pass.
        cache: its `features` are written if it needs any, and its `frozen` if it has any.
        state: its `feature_batch` is the batch size; lowered if a batch does not fit.
        progress: receives the events.
        check: called after each image; what it raises ends the pass.
        replicas: each of them computes a range at once; None: a single device.

    Returns:
        The seconds that an image took; None if no features were computed. The first range is not counted, since its
        graph is compiled, unless it is the only one.

    Raises:
        errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
    """
    compute = FeaturePass(classifier, cache, state, progress, replicas=replicas)
    for group in compute.groups(images.ingest(progress, check=check)):
        for (rows, _), computed in zip(group, compute([[pixels] for _, pixels in group]), strict=True):
            _store(cache, rows, computed)
    fill(images, cache, compute, progress)
    while not compute.agree(check):
        fill(images, cache, compute, progress)
    seconds = compute.seconds
    return statistics.median(seconds[1:] or seconds) / RANGE if seconds else None


def fill(images: Dataset, cache: Cache, compute: FeaturePass, progress: Progress) -> None:
    """Compute the ranges of the own share that were discarded, since a batch did not fit."""
    while missing := [rows for rows in images.own_ranges() if not cache.has_computed(rows)]:
        with progress.phase("features again", len(missing), "ranges") as phase:
            for group in compute.groups(missing):
                pixels = [[images.range_pixels(rows)] for rows in group]
                for rows, computed in zip(group, compute(pixels), strict=True):
                    _store(cache, rows, computed)
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
        replicas: each of them computes a range at once, as a single device would; None: there is one device.

    Attributes:
        seconds: that each range took.
    """

    def __init__(
        self,
        classifier: Classifier,
        cache: Cache,
        state: TrainingState,
        progress: Progress,
        settings: AugmentationSettings | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._classifier = classifier
        self._cache = cache
        self._state = state
        self._progress = progress
        self._settings = settings
        self._replicas = replicas
        self._compiled_for = 0
        self.seconds: list[float] = []

    def groups(self, ranges: Iterable[_Range]) -> Iterator[list[_Range]]:
        """Yield the ranges that are computed at once: one on each replica."""
        iterator = iter(ranges)
        while group := list(itertools.islice(iterator, 1 if self._replicas is None else self._replicas.local)):
            yield group

    def __call__(self, ranges: Sequence[Sequence[NDArray[Any]]]) -> list[list[NDArray[Any]]]:
        """Return what the cache needs of ranges of images, float32 [RANGE, ...]: features, if any, and frozen outputs.

        Of augmented images these are the features alone.

        Args:
            ranges: uint8 [RANGE, size, size, 3], pixels, followed by what `augmentation.draw` returned for augmented
                images; of a group of ranges.

        Raises:
            errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
        """
        started = time.monotonic()
        computed = memory.halve_until_it_fits(
            lambda batch_size: self._compute(ranges, batch_size),
            self._state.feature_batch or RANGE,
            work="the feature pass",
            halved=self._on_halved,
        )
        self.seconds += [(time.monotonic() - started) / len(ranges)] * len(ranges)
        return computed

    def agree(self, check: Callable[[], object]) -> bool:
        """Agree with the other workers on the smallest batch of any of them. Collective.

        Args:
            check: called while this worker waits for the others; what it raises ends the wait.

        Returns:
            Whether all have computed in that size. Else those with larger batches have discarded what they computed.
        """
        replicas, state = self._replicas, self._state
        if replicas is None or replicas.processes == 1:
            return True
        replicas.wait(check, self._progress)
        sizes = np.zeros(replicas.processes)
        sizes[replicas.process] = state.feature_batch or RANGE
        sizes = replicas.sum(sizes)
        if (smallest := int(sizes.min())) < sizes[replicas.process]:
            self._on_halved(smallest)
        return bool((sizes == smallest).all())

    def _compute(self, ranges: Sequence[Sequence[NDArray[Any]]], batch_size: int) -> list[list[NDArray[Any]]]:
        if self._compiled_for != batch_size:
            self._forward, self._compiled_for = self._compile(batch_size), batch_size
        starts = range(0, len(ranges[0][0]), batch_size)
        batches = [
            self._forward([[array[n : n + batch_size] for array in inputs] for inputs in ranges]) for n in starts
        ]
        return [
            [np.concatenate(tensors) for tensors in zip(*of_range, strict=True)]
            for of_range in zip(*batches, strict=True)
        ]

    def _on_halved(self, batch_size: int) -> None:
        self._state.feature_batch = batch_size
        self._cache.clear_features(batch_size)
        self._progress.event("features.batch_halved", severity="warning", feature_batch=batch_size)

    def _compile(self, batch_size: int) -> Callable[[list[list[NDArray[Any]]]], list[list[tf.Tensor]]]:
        """Return the forward pass of a group: uint8 [batch_size, size, size, 3] of each range -> as `__call__` returns.

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
        if (replicas := self._replicas) is None:
            compiled = tf.function(forward, input_signature=signature, autograph=False)
            return lambda inputs: [compiled(*inputs[0])]
        on_replicas = replicas.compile(forward, signature)

        def forward_group(inputs: list[list[NDArray[Any]]]) -> list[list[tf.Tensor]]:
            unused = replicas.local - len(inputs)  # of the last group
            return on_replicas(inputs + inputs[:1] * unused)[: len(inputs)]

        return forward_group
