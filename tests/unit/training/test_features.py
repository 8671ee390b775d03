"""Features are computed once for every image, in parts that fit into the device's memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from classifiers import part_dependent_classifier
from runs import Recorder, draw

from job import errors, storage
from job.config.settings import CacheSettings, InputSettings
from job.data import cache, dataset, manifest
from job.data.listing import read_listing
from job.observability.progress import Progress
from job.training import features
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from job.model.classifier import Classifier

SIZE = 32


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """A small classifier whose features depend on how many images are computed at once, as a large one's last bits."""
    return part_dependent_classifier(monkeypatch)


@pytest.fixture
def listed(tmp_path: Path) -> manifest.Manifest:
    """Seventy small pictures of two classes: three ranges of rows, the last one of six. One is unreadable."""
    for n in range(35):
        for label, shade in (("dark", 90), ("light", 160)):
            draw(tmp_path / "in" / label / f"{n}.png", shade=shade, seed=n, size=(8, 8))
    (tmp_path / "in/dark/3.png").write_bytes(b"no image")
    return read_listing(InputSettings(uri=str(tmp_path / "in")), storage.open_store)[0]


@contextlib.contextmanager
def opened(
    listed: manifest.Manifest, classifier: Classifier, folder: Path, part: int | None
) -> Iterator[tuple[dataset.Dataset, cache.Cache]]:
    """Open the data with a cache in `folder`, whose features are computed in parts of that size."""
    with (
        cache.Cache(
            CacheSettings(dir=str(folder)),
            run_id="run-1",
            made_from={"encoded": {}, "pixels": {}, "features": {"part": part}},
            images=len(listed),
            encoded_bytes=int(listed.size.sum()),
            image_size=SIZE,
            feature_size=classifier.feature_size,
        ) as opened_cache,
        dataset.Dataset(
            listed,
            opened_cache,
            image_size=SIZE,
            settings=InputSettings(max_pixels=10**6),
            threads=2,
            open_store=storage.open_store,
        ) as images,
    ):
        yield images, opened_cache


def computed(
    listed: manifest.Manifest,
    classifier: Classifier,
    folder: Path,
    state: TrainingState,
    progress: Progress | None = None,
    *,
    interrupt: bool = False,
) -> np.ndarray:
    """Do the pass; return the features of the usable images, [69, feature_size]."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        opened(listed, classifier, folder, state.feature_batch) as (images, opened_cache),
    ):
        features.extract(classifier, images, opened_cache, state, progress or Progress())
        values = opened_cache.features[np.flatnonzero(images.usable)]
        if interrupt:
            raise KeyboardInterrupt  # the cache stays
    return values


def runs_out_of_memory(monkeypatch: pytest.MonkeyPatch, classifier: Classifier, fits: Callable[[int], int]) -> None:
    """Let the device run out of memory with more than `fits(number of the call)` images."""
    plain, calls = classifier.features, tf.Variable(0)

    def limited(pixels: tf.Tensor) -> tf.Tensor:
        limit = tf.numpy_function(fits, [calls.assign_add(1)], tf.int64)
        is_full = tf.shape(pixels, tf.int64)[0] > limit
        length = tf.where(is_full, tf.constant(2**47, tf.int64), 1)  # note: half a petabyte
        return plain(pixels) * tf.reduce_max(tf.fill([length], 1.0))

    monkeypatch.setattr(classifier, "features", limited)


@pytest.mark.slow
@pytest.mark.parametrize("good_calls", [0, 1, 2])
def test_smaller_parts(
    listed: manifest.Manifest,
    classifier: Classifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    good_calls: int,
) -> None:
    """Where memory runs out, whether at first or later, all features end up with the bits of the smaller parts."""
    expected = computed(listed, classifier, tmp_path / "clean", TrainingState(feature_batch=8))
    runs_out_of_memory(monkeypatch, classifier, lambda call: np.int64(32 if call <= good_calls else 8))
    state, recorder = TrainingState(), Recorder()
    seen = computed(listed, classifier, tmp_path / "small", state, Progress([recorder]))

    assert (69, classifier.feature_size) == seen.shape
    assert expected.tobytes() == seen.tobytes()
    assert 8 == TrainingState.from_document(state.document(), {}).feature_batch
    assert 2 == recorder.names.count("features.batch_halved")  # 32 -> 16 -> 8


def test_features_of_other_parts_are_not_used(
    listed: manifest.Manifest, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier start computed in larger parts is computed again; in parts of the same size it is not."""
    expected = computed(listed, classifier, tmp_path / "clean", TrainingState(feature_batch=8))
    computed(listed, classifier, tmp_path / "kept", TrainingState(), interrupt=True)
    with monkeypatch.context() as patch:
        runs_out_of_memory(patch, classifier, lambda _: np.int64(8))
        state = TrainingState(feature_batch=8)
        assert expected.tobytes() == computed(listed, classifier, tmp_path / "kept", state, interrupt=True).tobytes()

    with opened(listed, classifier, tmp_path / "kept", 8) as (images, _):
        passed = [rows.start for rows, _ in images.ingest(Progress())]
    assert [0] == passed, "only the range with the unreadable image is read again"


@pytest.mark.slow
def test_one_image_does_not_fit(
    listed: manifest.Manifest, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device whose memory does not hold one image ends the run with exit 8."""
    runs_out_of_memory(monkeypatch, classifier, lambda _: np.int64(0))
    with pytest.raises(errors.DeviceMemoryError, match=r"one image at a time .* in the feature pass") as caught:
        computed(listed, classifier, tmp_path / "cache", TrainingState())
    assert 8 == caught.value.exit_code


def test_number_of_images_does_not_change_the_bits(
    listed: manifest.Manifest, classifier: Classifier, tmp_path: Path
) -> None:
    """The features of the first images have the same bits, however many images follow."""
    fewer = listed.take(np.arange(40))
    all_features = computed(listed, classifier, tmp_path / "all", TrainingState())
    first_features = computed(fewer, classifier, tmp_path / "fewer", TrainingState())

    assert 39 == len(first_features)
    assert first_features.tobytes() == all_features[:39].tobytes()


def test_seconds_of_an_image(
    listed: manifest.Manifest, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass returns how long the features of an image took; None where the cache has all of them."""
    with opened(listed, classifier, tmp_path / "c", None) as (images, kept):
        seconds = features.extract(classifier, images, kept, TrainingState(), Progress())
        monkeypatch.setattr(images, "ingest", lambda *_, **__: iter(()))
        again = features.extract(classifier, images, kept, TrainingState(), Progress())

    assert seconds is not None
    assert 0 < seconds < 60
    assert again is None
