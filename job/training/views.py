"""Views: the features of a few augmented versions of each training image, with which the epochs of stage 1 take turns.

The backbone runs once on each version. To train on a new version in every epoch, it would have to run in every epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from job.config.settings import view_count
from job.data.cache import VERSIONS
from job.data.dataset import RANGE
from job.training import augmentation
from job.training.features import FeaturePass, fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.config.settings import Settings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.state import TrainingState
    from job.training.strategy import Replicas


def dependencies(settings: Settings) -> dict[str, object]:
    """Return everything that the features of augmented images depend on besides what features do, as plain JSON."""
    changes = settings.augmentation.model_dump(mode="json", exclude={"mixup"})
    return {VERSIONS: view_count(settings), "augmentation": changes, "seed": settings.run.seed}


class Part(NamedTuple):
    """Features that are computed together.

    Attributes:
        version: of the images: the epoch whose numbers are drawn for them.
        position: of the part among those of its version.
        rows: of the manifest, at most `RANGE`.
        stored: where they are stored.
    """

    version: int
    position: int
    rows: NDArray[Any]
    stored: slice


class Views:
    """The features of augmented versions of the training images.

    Args:
        cache: its `views` are read and written, one version after the other.
        settings: of the run.
        train: rows of the training split, ascending, int [n].

    Attributes:
        count: number of versions.
    """

    def __init__(self, cache: Cache, settings: Settings, train: NDArray[Any]) -> None:
        assert cache.views is not None
        self.count = view_count(settings)
        self.cache = cache
        self.settings = settings
        self.stored = cache.views
        self._train = train

    def __call__(self, rows: NDArray[Any], epoch: int) -> NDArray[Any]:
        """Return the features of training images in an epoch, float32 [n, feature_size]."""
        return self.stored[epoch % self.count * len(self._train) + np.searchsorted(self._train, rows)]

    def parts(self) -> list[Part]:
        """Return what is computed together."""
        total = len(self._train)
        return [
            Part(
                version,
                n // RANGE,
                self._train[n : n + RANGE],
                slice(version * total + n, version * total + min(n + RANGE, total)),
            )
            for version in range(self.count)
            for n in range(0, total, RANGE)
        ]

    def is_intact(self, rows: slice) -> bool:
        """Whether these consecutive rows were written, and are as they were written."""
        return self.stored.has(rows) and bool(self.stored.read(np.arange(rows.start, rows.stop))[1].all())


def extract_views(
    views: Views,
    classifier: Classifier,
    images: Dataset,
    state: TrainingState,
    progress: Progress,
    *,
    check: Callable[[], object] = int,
    replicas: Replicas | None = None,
) -> None:
    """Compute the features of the own share of the augmented training images, except what an earlier start wrote.

    If a batch does not fit into the device's memory, all features are computed again in smaller batches, also those of
    the unchanged images of the own share: they all depend on the batch size.

    Args:
        views: what is computed and where it is stored. The features of the unchanged images are complete.
        classifier: with its pretrained weights, folded.
        images: the data, after the pass.
        state: its `feature_batch` is the batch size; lowered if a batch does not fit.
        progress: receives the events.
        check: called after each part; what it raises ends the pass.
        replicas: each of them computes a part at once; None: a single device.

    Raises:
        errors.DeviceMemoryError: a batch of one image does not fit into the device's memory.
    """
    cache, size, changes = views.cache, classifier.image_size, views.settings.augmentation
    drawn = augmentation.Augmentation(
        settings=changes, seed=views.settings.run.seed, stage="feature_extraction", image_size=size
    )
    compute = FeaturePass(classifier, cache, state, progress, changes, replicas)

    def load(part: Part) -> list[NDArray[Any]]:
        pixels = np.zeros((RANGE, size, size, 3), np.uint8)
        pixels[: len(part.rows)] = images.pixels(part.rows)
        return [pixels, *drawn.draw(np.resize(part.rows, RANGE), part.version)]

    share = images.share
    own = [part for part in views.parts() if part.position % share.workers == share.worker]
    missing = [part for part in own if not views.is_intact(part.stored)]
    while missing or not compute.agree(check):
        with progress.phase("augmented features", sum(len(part.rows) for part in missing), "images") as phase:
            for group in compute.groups(missing):
                for part, [features] in zip(group, compute([load(part) for part in group]), strict=True):
                    views.stored[part.stored] = features[: len(part.rows)]
                    phase.advance(len(part.rows))
                    check()
        fill(images, cache, FeaturePass(classifier, cache, state, progress, replicas=replicas), progress)
        missing = [part for part in own if not views.stored.has(part.stored)]
