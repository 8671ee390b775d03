"""Views: the features of augmented training images, computed once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import part_dependent_classifier, small_classifier
from runs import Recorder, draw

from job import errors, storage
from job.config.settings import CacheSettings, InputSettings, Settings
from job.data import cache, dataset
from job.data.cache import VERSIONS
from job.data.listing import read_listing
from job.observability.progress import Progress
from job.training import features, views
from job.training.augmentation import change_images
from job.training.augmentation import draw as draw_numbers
from job.training.state import TrainingState
from job.training.views import Views, extract_views

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from job.data.manifest import Manifest
    from job.model.classifier import Classifier

SIZE = 32
TRAIN = np.flatnonzero(np.arange(50) % 5)  # forty of fifty images: parts of 32 and of 8
SETTINGS = Settings.model_validate(
    {
        "augmentation": {"flip": "both", "contrast": 0.2},
        "feature_extraction": {"views": 2},
        "model": {"image_size": SIZE},
    }
)


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """A small classifier whose features depend on how many images are computed at once, as a large one's last bits."""
    return part_dependent_classifier(monkeypatch)


@pytest.fixture
def listed(tmp_path: Path) -> Manifest:
    """Fifty small pictures of two classes."""
    for n in range(25):
        for label, shade in (("dark", 90), ("light", 160)):
            draw(tmp_path / "in" / label / f"{n}.png", shade=shade, seed=n, size=(8, 8))
    return read_listing(InputSettings(uri=str(tmp_path / "in")), storage.open_store)[0]


@contextlib.contextmanager
def opened(
    listed: Manifest, classifier: Classifier, folder: Path, part: int | None = None
) -> Iterator[tuple[dataset.Dataset, cache.Cache]]:
    """Open the data with a cache in `folder` that has room for two versions, after the pass over them."""
    with (
        cache.Cache(
            CacheSettings(dir=str(folder)),
            run_id="run-1",
            made_from={"encoded": {}, "pixels": {}, "features": {"part": part}, "views": {VERSIONS: 2, "part": part}},
            images=len(listed),
            encoded_bytes=int(listed.size.sum()),
            image_size=SIZE,
            feature_size=classifier.feature_size,
        ) as opened_cache,
        dataset.Dataset(
            listed,
            opened_cache,
            image_size=SIZE,
            settings=InputSettings(),
            threads=2,
            open_store=storage.open_store,
        ) as images,
    ):
        yield images, opened_cache


def computed(
    listed: Manifest, classifier: Classifier, folder: Path, state: TrainingState | None = None, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features and those of two versions; return both, [50, size] and [2, 40, size]."""
    state = state or TrainingState()
    with opened(listed, classifier, folder, state.feature_batch) as (images, opened_cache):
        features.extract(classifier, images, opened_cache, state, Progress())
        found = Views(opened_cache, SETTINGS, TRAIN)
        extract_views(found, classifier, images, state, options.pop("progress", Progress()), **options)
        return opened_cache.features[np.arange(50)], np.stack([found(TRAIN, epoch) for epoch in (0, 1)])


@pytest.mark.slow
def test_views_are_features_of_augmented_images(listed: Manifest, tmp_path: Path) -> None:
    """Version v has the features of the images as epoch v changes them; the epochs take turns, in any order of rows."""
    classifier, state = small_classifier(), TrainingState()
    with opened(listed, classifier, tmp_path / "cache") as (images, opened_cache):
        features.extract(classifier, images, opened_cache, state, Progress())
        found = Views(opened_cache, SETTINGS, TRAIN)
        extract_views(found, classifier, images, state, Progress())
        seen = [found(TRAIN[[7, 3]], epoch) for epoch in range(5)]
        for version in (0, 1):
            numbers = draw_numbers(
                SETTINGS.augmentation, TRAIN, seed=7, stage="feature_extraction", epoch=version, image_size=SIZE
            )
            changed = change_images(SETTINGS.augmentation, tf.constant(images.pixels(TRAIN)), numbers)
            expected = classifier.features(changed).numpy()
            np.testing.assert_allclose(found(TRAIN, version), expected, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(seen[version], expected[[7, 3]], rtol=1e-4, atol=1e-5)
        assert seen[0].tobytes() == seen[2].tobytes() == seen[4].tobytes() != seen[1].tobytes()
        assert seen[1].tobytes() == seen[3].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 3])
def test_resumed_pass_ends_in_the_same_bits(
    listed: Manifest, classifier: Classifier, tmp_path: Path, parts: int
) -> None:
    """A pass that is stopped between two parts resumes after the last one, and ends in the same bits."""
    expected = computed(listed, classifier, tmp_path / "clean")
    left, calls = iter(range(parts - 1)), list[int]()

    def stop() -> None:
        if next(left, None) is None:
            raise errors.StoppedError("stopped", remedy="")

    with pytest.raises(errors.StoppedError):
        computed(listed, classifier, tmp_path / "kept", check=stop)
    seen = computed(listed, classifier, tmp_path / "kept", check=lambda: calls.append(1))

    assert 4 - parts == len(calls)
    assert [values.tobytes() for values in expected] == [values.tobytes() for values in seen]


@pytest.mark.slow
def test_damaged_part_is_computed_again(listed: Manifest, classifier: Classifier, tmp_path: Path) -> None:
    """A part whose bytes on the disk have changed is computed again by the next start, and no other one."""
    expected, calls = computed(listed, classifier, tmp_path / "clean"), list[int]()
    with contextlib.suppress(errors.StoppedError), opened(listed, classifier, tmp_path / "kept") as (images, kept):
        features.extract(classifier, images, kept, TrainingState(), Progress())
        extract_views(Views(kept, SETTINGS, TRAIN), classifier, images, TrainingState(), Progress())
        raise errors.StoppedError("stopped", remedy="")
    with (kept.folder / "views").open("r+b") as file:
        file.write(b"damage")
    seen = computed(listed, classifier, tmp_path / "kept", check=lambda: calls.append(1))

    assert [1] == calls
    assert [values.tobytes() for values in expected] == [values.tobytes() for values in seen]


@pytest.mark.slow
def test_smaller_parts(
    listed: Manifest, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory runs out amid the pass, all features, also the first ones, have the bits of the smaller parts."""
    expected = computed(listed, classifier, tmp_path / "clean", TrainingState(feature_batch=16))
    plain, calls = classifier.features, tf.Variable(0)

    def limited(pixels: tf.Tensor) -> tf.Tensor:
        # the two ranges of the features fit, and one part of the augmented ones
        limit = tf.where(calls.assign_add(1) <= 3, 32, 16)
        length = tf.where(tf.shape(pixels)[0] > limit, tf.constant(2**47, tf.int64), 1)  # note: half a petabyte
        return plain(pixels) * tf.reduce_max(tf.fill([length], 1.0))

    monkeypatch.setattr(classifier, "features", limited)
    state, recorder = TrainingState(), Recorder()
    seen = computed(listed, classifier, tmp_path / "small", state, progress=Progress([recorder]))

    assert 16 == state.feature_batch
    assert 1 == recorder.names.count("features.batch_halved")
    assert [values.tobytes() for values in expected] == [values.tobytes() for values in seen]


def test_dependencies() -> None:
    """Cached features of augmented images depend on the changes, their number and the seed; mixup blends them later."""
    base = views.dependencies(SETTINGS)
    changes = {
        "views": {"feature_extraction": {"views": 3}},
        "seed": {"run": {"seed": 8}},
        "crop": {"augmentation": {"flip": "both", "contrast": 0.2, "crop": 0.1}},
    }
    for change in changes.values():
        assert base != views.dependencies(Settings.model_validate({**SETTINGS.model_dump(), **change}))
    with_mixup = {"augmentation": {"flip": "both", "contrast": 0.2, "mixup": 0.1}}
    assert base == views.dependencies(Settings.model_validate({**SETTINGS.model_dump(), **with_mixup}))
