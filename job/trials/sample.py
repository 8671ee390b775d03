"""A model and some of a run's images, with a temporary cache: for what is tried out without a run."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING

from job.config.settings import CacheSettings, view_count
from job.data.cache import open_cache, part_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from job.config.settings import Settings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.data.manifest import Manifest
    from job.model.classifier import Classifier, Network
    from job.model.weights import Provenance
    from job.runtime.device import Device
    from job.storage import OpenStore
    from job.training.state import TrainingState


@contextlib.contextmanager
def open_sample(
    settings: Settings,
    sample: Manifest,
    open_store: OpenStore,
    machine: Device,
    *,
    keeps_pixels: bool,
    load_weights: Callable[[Network], Provenance],
) -> Iterator[tuple[Classifier, Provenance, Dataset, Cache]]:
    """Build the model, and open the images with a cache of their own, which is removed at the end.

    Args:
        settings: of the run.
        sample: the images.
        open_store: opens the stores.
        machine: the device, as configured.
        keeps_pixels: the cache has room for the decoded pixels, too.
        load_weights: sets the weights of the model.

    Yields:
        The model, the provenance of its weights, the images and their cache.
    """
    from job.data.dataset import Dataset
    from job.model import classifier as classifiers
    from job.training import features, views

    classifier, weights = classifiers.build(
        settings,
        sample.labels,
        resumed={},
        machine=machine,
        load_weights=load_weights,
    )
    feature_size = classifier.feature_size if settings.feature_extraction.epochs else 0
    parts = part_bytes(
        len(sample),
        encoded_bytes=int(sample.size.sum()),
        image_size=classifier.image_size,
        feature_size=feature_size,
        views=view_count(settings),
        frozen_shape=classifier.frozen_part.shape if classifier.frozen_part else (),
    )
    # Twice the encoded bytes: objects that are stored compressed are larger in the cache.
    limit = sum(parts.values()) + parts["encoded"] - (0 if keeps_pixels else parts["pixels"])
    with (
        tempfile.TemporaryDirectory(dir=settings.cache.dir or None) as folder,
        open_cache(
            CacheSettings(dir=folder, max_bytes=limit),
            run_id="sample",
            manifest=sample,
            image_size=classifier.image_size,
            feature_size=feature_size,
            depends_on={
                "pixels": {},
                "features": {},
                "views": views.dependencies(settings),
                "frozen": features.frozen_dependencies(classifier),
            },
        ) as cache,
        Dataset(
            sample,
            cache,
            image_size=classifier.image_size,
            settings=settings.input,
            threads=machine.threads,
            open_store=open_store,
        ) as images,
    ):
        yield classifier, weights, images, cache


def save_nothing(capture: Callable[[], TrainingState], /, *, now: bool, wait: bool) -> None:
    """Take the place of the checkpoints."""
