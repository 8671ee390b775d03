"""The phases that concern the data: list, read, check and split them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job.config.settings import runs_backbone
from job.data import contradictions, manifest
from job.data.labels import SPLIT_NAMES, TRAIN
from job.data.listing import read_listing
from job.data.prepare import QUARANTINE, Prepared, prepare
from job.errors import DataError
from job.phases.sharing import share_pass
from job.runs.data import Data
from job.runs.identity import identify
from job.runtime import cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from job.config.settings import CacheSettings, Settings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.data.quarantine import Quarantined
    from job.model.classifier import Classifier
    from job.model.warm_start import PublishedModel
    from job.model.weights import Provenance as Weights
    from job.observability.progress import Progress
    from job.phases.context import RunContext
    from job.runs.run import Run
    from job.runtime import device
    from job.storage import OpenStore
    from job.training.state import TrainingState


def list_images(settings: Settings, open_store: OpenStore, progress: Progress) -> Data:
    """List the input images; their content is not read yet.

    Raises:
        errors.DataError: the listing has fewer than two classes, or holds the same images under two labels.
    """
    source = settings.input
    if not source.uri:
        from job.data import demo_pictures  # only the demo needs Pillow

        drawn = demo_pictures.pictures(Path(settings.cache.dir or tempfile.gettempdir()), progress)
        source = source.model_copy(update={"uri": str(drawn)})
    with progress.phase("list", None, "objects") as phase:
        listed, quarantined = read_listing(source, open_store, phase.advance)
    manifest.check_classes(listed)
    contradictions.check(listed, settled=source.layout != "auto")
    progress.event("input.listed", uri=source.uri, images=len(listed), labels=len(listed.labels))
    return Data(listed=listed, quarantined=quarantined)


def load_data(context: RunContext, listing: Data | None) -> Data:
    """Return the data of the run as an earlier start saved them; save those of the first start.

    Args:
        context: of the run.
        listing: the data, if this process has listed them. They may have been moved since they were saved.
    """
    saved = context.checkpoints.load_data()
    if saved is None and listing is None:  # what was saved is damaged; the data must not have changed since
        settings, open_store = context.loaded.settings, context.open_store
        with context.timing.part("list"):
            listing = list_images(settings, open_store, context.progress)
        context.run.record_identity(context.loaded, identify(settings, open_store, listing.listed), "job")
    data = saved.relocated(listing) if saved and listing else saved or listing
    assert data is not None
    if data is not saved:
        context.checkpoints.save_data(data)
    if data.usable is None:  # the pass over the data is not over
        with quarantine_published(context.run, lambda: data.quarantined):
            manifest.check_usable(data.listed, data.quarantined, context.loaded.settings.input.max_bad_fraction)
    return data


@contextlib.contextmanager
def open_images(
    context: RunContext,
    data: Data,
    classifier: Classifier,
    machine: device.Device,
    weights: Weights,
    state: TrainingState,
) -> Iterator[tuple[Dataset, Cache]]:
    """Open the images and the cache that they are read into.

    Args:
        context: of the run.
        data: which images, and where they are stored.
        classifier: with its pretrained weights.
        machine: the device.
        weights: which those are.
        state: at the start of training; the cache has features only if stage 1 is not over.

    Yields:
        The images and the cache.
    """
    from job.data.cache import open_cache
    from job.data.dataset import Dataset, Share
    from job.training import features, views

    settings = context.loaded.settings
    needs_features = state.stage == "feature_extraction" and settings.feature_extraction.epochs > 0
    with (
        open_cache(
            cache_settings(settings),
            run_id=f"{context.run.id}.{index}" if (index := settings.workers.index) else context.run.id,
            manifest=data.listed,
            image_size=classifier.image_size,
            feature_size=classifier.feature_size if needs_features else 0,
            depends_on={
                "pixels": {"tensorflow": machine.tensorflow},
                "features": features.dependencies(weights.digest, machine, state),
                "views": views.dependencies(settings),
                "frozen": features.frozen_dependencies(classifier),
            },
        ) as cache,
        Dataset(
            data.listed,
            cache,
            image_size=classifier.image_size,
            settings=settings.input,
            threads=machine.threads,
            selected=data.usable,
            open_store=context.open_store,
            share=Share(settings.workers.index, settings.workers.count) if context.workers else Share(),
        ) as images,
    ):
        context.progress.event("cache.opened", **cache.facts)
        yield images, cache


def cache_settings(settings: Settings) -> CacheSettings:
    """Return the settings of the cache. Each of several workers uses its temporary folder again after a restart."""
    if settings.workers.count == 1 or settings.cache.dir:
        return settings.cache
    return settings.cache.model_copy(update={"dir": cluster.cache_folder()})


def read_images(
    context: RunContext, classifier: Classifier, images: Dataset, cache: Cache, state: TrainingState
) -> float | None:
    """Make the one pass over the data: download, check, decode, compute features. Several workers share it.

    Where several workers train, an earlier start has read all images and nothing is computed from them, it is left out.
    Each worker decodes the images of other shares when it trains on them, and downloads them meanwhile.

    Args:
        context: of the run.
        classifier: with its pretrained weights.
        images: the data.
        cache: where features and the frozen part's outputs are written, if the run needs any.
        state: at the start of training.

    Returns:
        The seconds that the features of an image took, with the frozen part's outputs, divided by the number of
        workers; None if none were computed.
    """
    from job.training import features

    progress, check, seconds = context.progress, context.check, None
    with context.timing.part("ingest"):
        if cache.needs_features or cache.frozen is not None:
            replicas = context.replicas
            seconds = features.extract(classifier, images, cache, state, progress, check=check, replicas=replicas)
            share_pass(context, images, cache)
        elif context.workers and images.hashes is None:
            images.skip_pass()
        else:
            collections.deque(images.ingest(progress, check=check), maxlen=0)
            share_pass(context, images, cache)
    settings = context.loaded.settings
    trains_on_pixels = runs_backbone(settings) or (settings.fine_tuning.epochs > 0 and cache.frozen is None)
    if context.workers and (trains_on_pixels or cache.views is not None):
        images.fetch_ahead()
    return None if seconds is None else seconds / images.share.workers


def prepare_data(context: RunContext, data: Data, images: Dataset, published: PublishedModel | None) -> Prepared:
    """Check and split the data, and publish the reports. Save which images are usable, unless an earlier start has.

    Args:
        context: of the run.
        data: as listed, or as an earlier start saved them.
        images: after the pass over the data.
        published: the model of a warm start.
    """
    settings, hashes = context.loaded.settings.input, images.hashes if data.usable is None else data.hashes
    with quarantine_published(context.run, lambda: data.quarantined + images.quarantined):
        prepared = prepare(data.listed, data.quarantined, images, settings, context.progress, hashes=hashes)
    if published:
        prepared = dataclasses.replace(prepared, seen=images_seen(prepared, published, context.progress))
    for name, documents in prepared.documents():
        context.run.write_documents(name, documents)
    if data.usable is None:
        context.checkpoints.save_data(
            Data(listed=data.listed, usable=images.usable, hashes=hashes, quarantined=prepared.quarantined)
        )
    return prepared


def images_seen(prepared: Prepared, published: PublishedModel, progress: Progress) -> dict[str, int]:
    """Return the number of held-out images, by split, that the model of a warm start has trained on.

    Its accuracy on them says nothing about new images. Copies of a picture are on one side of the split as long as its
    settings are the same, so there are none unless they changed.
    """
    content = prepared.usable.content_keys()
    seen = {
        name: int(np.isin(content[prepared.splits == code], published.trained_on).sum())
        for code, name in SPLIT_NAMES.items()
        if code != TRAIN
    }
    if any(seen.values()):
        progress.event("warm_start.images_seen", severity="warning", run_uri=published.uri, **seen)
    return seen


@contextlib.contextmanager
def quarantine_published(run: Run, quarantined: Callable[[], Sequence[Quarantined]]) -> Iterator[None]:
    """Publish the list of unusable images where data are rejected: it is what their owner has to work through.

    Args:
        run: the run.
        quarantined: returns the images.

    Raises:
        errors.DataError: as raised in the block, its remedy naming the list.
    """
    try:
        yield
    except DataError as error:
        run.write_documents(QUARANTINE, map(dataclasses.asdict, quarantined()))
        listed = f"; {run.uri}/{QUARANTINE} has each unusable image with its reason"
        raise DataError(error.message, remedy=error.remedy + (listed if quarantined() else "")) from error
