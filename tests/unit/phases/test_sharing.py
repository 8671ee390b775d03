"""The pass over the data, shared by two workers, which are threads here; see tests/workers for processes."""

from __future__ import annotations

import contextlib
import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import part_dependent_classifier
from runs import Facts, draw
from worker_threads import both

from job import errors, storage
from job.config.settings import CacheSettings, InputSettings, Settings
from job.data.cache import VERSIONS, Cache
from job.data.dataset import Dataset, Share
from job.data.listing import read_listing
from job.observability.progress import Listener, Progress
from job.phases.context import RunContext
from job.phases.data import read_images
from job.phases.sharing import check_same_weights
from job.phases.training import examples_of
from job.runtime.timing import Timing
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from job.data.manifest import Manifest
    from job.model.classifier import Classifier

SIZE = 32
SETTINGS = Settings.model_validate(
    {
        "augmentation": {"flip": "both"},
        "feature_extraction": {"views": 2},
        "model": {"image_size": SIZE},
    }
)


@pytest.fixture
def listed(tmp_path: Path) -> Manifest:
    """160 small pictures of two classes: five ranges of rows. One of each worker's is unreadable."""
    for n in range(80):
        for label, shade in (("dark", 90), ("light", 160)):
            draw(tmp_path / "in" / label / f"{n:02}.png", shade=shade, seed=n, size=(8, 8))
    for name in ("dark/03.png", "dark/40.png"):
        (tmp_path / "in" / name).write_bytes(b"no image")
    return read_listing(InputSettings(uri=str(tmp_path / "in")), storage.open_store)[0]


def context_of(replicas: Any, *listeners: Listener) -> RunContext:
    """Return the context of a worker; replicas are those of both, or None where there is one."""
    given: Any = {
        "loaded": SimpleNamespace(settings=SETTINGS),
        "checkpoints": SimpleNamespace(check=int),
        "timing": Timing(),
        "progress": Progress(listeners),
        "replicas": replicas,
        "peers": replicas and SimpleNamespace(check=int),
    }
    return RunContext(**dict.fromkeys(RunContext._fields) | given)


class Worker:
    """What a worker has after the pass.

    Args:
        listed: the images.
        folder: of its cache.
        classifier: of its own.
        replicas: of both workers; None: there is one.
        selected: the images that an earlier start has read; None: it has read none.

    Attributes:
        images_read: in its pass.
        state: of the training.
        found: the arrays and documents that all workers must agree on.
    """

    def __init__(
        self,
        listed: Manifest,
        folder: Path,
        classifier: Classifier,
        replicas: Any = None,
        selected: np.ndarray[Any, Any] | None = None,
    ) -> None:
        facts, self.state = Facts("images.read"), TrainingState()
        context = context_of(replicas, facts)
        with self._opened(listed, folder, classifier, replicas, selected) as (images, cache):
            read_images(context, classifier, images, cache, self.state)
            train = np.flatnonzero(images.usable)[::2]
            prepared: Any = SimpleNamespace(rows_of={"train": train, "validation": train[:1]})
            examples_of(context, classifier, images, cache, prepared, self.state)
            assert cache.views is not None
            for thread in threading.enumerate():
                if thread.name == "fetch":
                    thread.join(20)
            self.images_read = facts.seen[0]["images"]
            self.found: dict[str, Any] = {
                "bytes kept": cache.has_encoded(np.arange(len(listed))).tolist(),  # of the other share as well
                "usable": images.usable.tobytes(),
                "damaged": images.damaged.tobytes(),
                "hashes": images.hashes is not None and images.hashes.tobytes(),
                "quarantined": json.dumps([(image.uri, image.reason) for image in images.quarantined]),
                "features": cache.features[np.flatnonzero(images.usable)].tobytes(),
                "views": cache.views[np.arange(2 * len(train))].tobytes(),
            }

    @contextlib.contextmanager
    def _opened(
        self, listed: Manifest, folder: Path, classifier: Classifier, replicas: Any, selected: Any
    ) -> Iterator[tuple[Dataset, Cache]]:
        with (
            Cache(
                CacheSettings(dir=str(folder)),
                run_id="run-1",
                made_from={part: {} for part in ("encoded", "pixels", "features")} | {"views": {VERSIONS: 2}},
                images=len(listed),
                encoded_bytes=int(listed.size.sum()),
                image_size=SIZE,
                feature_size=classifier.feature_size,
            ) as cache,
            Dataset(
                listed,
                cache,
                image_size=SIZE,
                settings=InputSettings(max_pixels=10**6),
                threads=1,
                selected=selected,
                open_store=storage.open_store,
                share=Share(replicas.process, replicas.processes) if replicas else Share(),
            ) as images,
        ):
            yield images, cache


def limit_memory(monkeypatch: pytest.MonkeyPatch, classifier: Classifier, *, calls: int) -> None:
    """Let the device run out of memory with more than 16 images, from a call on."""
    plain, count = classifier.features, tf.Variable(0)

    def limited(pixels: tf.Tensor) -> tf.Tensor:
        limit = tf.where(count.assign_add(1) <= calls, 32, 16)
        length = tf.where(tf.shape(pixels)[0] > limit, tf.constant(2**47, tf.int64), 1)  # note: half a petabyte
        return plain(pixels) * tf.reduce_max(tf.fill([length], 1.0))

    monkeypatch.setattr(classifier, "features", limited)


def test_other_weights() -> None:
    """Workers that start from different weights are refused: their features would not be those of one backbone."""
    both(lambda replicas: check_same_weights(context_of(replicas), "same"))
    with pytest.raises(errors.SettingsError, match=r"worker 1 starts from weights of digest b, and worker 0 .* a"):
        both(lambda replicas: check_same_weights(context_of(replicas), "ab"[replicas.process]))


def test_two_workers_find_what_one_does(listed: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads its share, and both end with what a single one has, also of the images that they refuse."""
    one, first, second = (part_dependent_classifier(monkeypatch) for _ in range(3))
    expected = Worker(listed, tmp_path / "one", one)
    classifiers = (first, second)
    workers, _ = both(
        lambda replicas: Worker(listed, tmp_path / f"{replicas.process}", classifiers[replicas.process], replicas)
    )

    assert [expected.found, expected.found] == [worker.found for worker in workers]
    assert [160, 96, 64] == [worker.images_read for worker in (expected, *workers)]
    assert "40.png" in expected.found["quarantined"]


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1, 3], ids=["at once", "in the pass", "in the views"])
def test_less_memory_in_one_worker(
    listed: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """If batches do not fit in one worker, both compute all features in smaller ones."""
    one, first, second = (part_dependent_classifier(monkeypatch) for _ in range(3))
    limit_memory(monkeypatch, one, calls=0)
    expected = Worker(listed, tmp_path / "one", one)
    limit_memory(monkeypatch, second, calls=calls)
    classifiers = (first, second)
    workers, _ = both(
        lambda replicas: Worker(listed, tmp_path / f"{replicas.process}", classifiers[replicas.process], replicas)
    )

    assert [16, 16, 16] == [worker.state.feature_batch for worker in (expected, *workers)]
    assert [expected.found, expected.found] == [worker.found for worker in workers]


def test_later_start_reads_a_share_of_what_is_usable(
    listed: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that knows which images are usable computes the same features; one that is gone ends the run."""
    one, first, second = (part_dependent_classifier(monkeypatch) for _ in range(3))
    classifiers = (first, second)
    expected = Worker(listed, tmp_path / "one", one)
    usable = np.frombuffer(expected.found["usable"], bool)
    workers, _ = both(
        lambda replicas: Worker(
            listed, tmp_path / f"{replicas.process}", classifiers[replicas.process], replicas, usable
        )
    )

    for name in ("usable", "features", "views"):
        assert [expected.found[name]] * 2 == [worker.found[name] for worker in workers]
    assert [95, 63] == [worker.images_read for worker in workers]
    (tmp_path / "in/dark/00.png").unlink()
    with pytest.raises(errors.DataError, match="cannot be read any more"):
        Worker(listed, tmp_path / "again", one, selected=usable)
