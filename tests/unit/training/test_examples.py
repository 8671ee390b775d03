"""What each stage learns from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tensorflow as tf
from classifiers import LABELS, examples, refolded, small_classifier

from job.config.settings import STAGES, FineTuningSettings, Settings
from job.training.examples import create_examples

if TYPE_CHECKING:
    from job.config.settings import StageName

ROWS = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([], np.intp)}


def test_each_stage_has_its_inputs_and_its_precision() -> None:
    """Stage 1 reads features in float32; stage 2 reads pixels in the training precision, which its optimizer needs."""
    classifier = refolded(small_classifier(), training_precision="float16")
    pixels, features = np.zeros((3, 32, 32, 3), np.uint8), np.zeros((3, classifier.feature_size), np.float32)
    images = SimpleNamespace(pixels=pixels.__getitem__, manifest=SimpleNamespace(label=np.array([0, 1, 0])))

    examples = create_examples(classifier, images, features, ROWS, settings=Settings())

    assert ["feature_extraction", "fine_tuning"] == list(examples)
    assert ["float32", "float16"] == [stage.precision for stage in examples.values()]
    assert [(2, classifier.feature_size), (2, 32, 32, 3)] == [
        stage.inputs(stage.train).shape for stage in examples.values()
    ]


@pytest.mark.parametrize(("stage", "shape"), [("feature_extraction", (None, 8)), ("fine_tuning", (None, 32, 32, 3))])
def test_inputs_fit_their_spec(stage: str, shape: tuple[int | None, ...]) -> None:
    """Stage 1 reads features and stage 2 pixels, by rows in the order asked for."""
    data = examples(small_classifier(), stage)

    inputs = data.inputs(np.array([5, 0]))

    assert shape == tuple(data.spec.shape)
    assert data.spec.is_compatible_with(tf.constant(inputs))
    assert np.array_equal(inputs[::-1], data.inputs(np.array([0, 5])))


def test_stages_share_rows_and_labels() -> None:
    """Both stages learn from and measure with the same images, and predict the same before any training."""
    classifier = small_classifier()
    first, second = (examples(classifier, stage) for stage in STAGES)

    assert np.array_equal(LABELS, first.labels)
    assert np.array_equal(first.labels, second.labels)
    assert (list(range(8)), [8, 9, 10, 11]) == (second.train.tolist(), second.validation.tolist())
    logits = [data.predict(data.inputs(data.validation)).numpy() for data in (first, second)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def test_only_stage_2_trains_in_another_precision() -> None:
    """The head is trained in float32 in every training precision."""
    classifier = refolded(small_classifier(), training_precision="bfloat16")

    assert ["float32", "bfloat16"] == [examples(classifier, stage).precision for stage in STAGES]


def augmented(views: int, **changes: object) -> Settings:
    """Return the settings of a run with augmentation."""
    return Settings.model_validate({"augmentation": changes, "feature_extraction": {"views": views}})


def test_stage_1_trains_on_views() -> None:
    """With features of augmented images, stage 1 reads those of the epoch, and measures with unchanged ones."""
    classifier = small_classifier()
    images = SimpleNamespace(pixels=None, manifest=SimpleNamespace(label=LABELS))
    plain = np.zeros((12, 8), np.float32)

    def views(rows: np.ndarray, epoch: int) -> np.ndarray:
        return np.full((len(rows), 8), epoch, np.float32)

    settings = augmented(4, flip="both")
    data = create_examples(classifier, images, plain, ROWS, settings=settings, views=views)["feature_extraction"]

    assert data.augmentation is None
    assert [0.0, 3.0] == [data.load_for_training(data.train, epoch).max() for epoch in (0, 3)]
    assert 0 == data.inputs(data.train).max()


def test_stage_1_blends_features() -> None:
    """With mixup, stage 1 blends what it reads, unless the backbone runs in its step: then pictures."""
    classifier = small_classifier()
    features, pictures = (examples(classifier, "feature_extraction", augmented(views, mixup=0.2)) for views in (4, 0))

    assert (None, classifier.feature_size) == tuple(features.gradient_spec.shape)
    assert (None, 32, 32, 3) == tuple(pictures.gradient_spec.shape)
    assert 2 == len(features.blend_spec) == len(pictures.blend_spec)


def test_backbone_in_each_epoch() -> None:
    """Without cached features, stage 1 trains on augmented pixels, in float32, and measures with cached features."""
    classifier = refolded(small_classifier(), training_precision="bfloat16")
    data = examples(classifier, "feature_extraction", augmented(0, flip="both"))
    pixels, numbers = data.load_for_training(data.train, 1)
    logits = data.training_logits(tf.constant(pixels), tf.zeros(2, tf.int32))

    assert "float32" == data.precision
    assert len(data.train) == len(numbers.contrast)
    assert (None, classifier.feature_size) == tuple(data.spec.shape)
    np.testing.assert_allclose(data.predict(data.inputs(data.train)), logits, rtol=1e-4, atol=1e-5)


def test_cached_outputs_of_the_frozen_part_give_the_same_logits() -> None:
    """Stage 2 reads the outputs of the frozen part, and its logits are those of the pixels."""
    classifier = small_classifier(FineTuningSettings(from_layer="b", cache_frozen=True))
    cached = examples(classifier, "fine_tuning")
    assert classifier.frozen_part is not None
    rows, seed = np.arange(12), tf.constant((1, 2))
    pixels = examples(small_classifier(), "fine_tuning").inputs(rows)

    assert (None, *classifier.frozen_part.shape) == tuple(cached.spec.shape)
    for actual, expected in (
        (cached.logits(cached.inputs(rows)), classifier.logits(pixels)),
        (cached.training_logits(cached.inputs(rows), seed), classifier.training_logits(pixels, seed)),
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("changes", [{}, {"flip": "both", "mixup": 0.4}])
def test_inputs_of_a_call_are_those_of_its_batches(stage: StageName, changes: dict[str, object]) -> None:
    """Read at once, each batch has the inputs that it has by itself, with its own partners of mixup."""
    of_run = Settings.model_validate({"augmentation": changes, "feature_extraction": {"views": 0}})
    data = examples(small_classifier(), stage, of_run)
    batches = np.array([[5, 0, 3], [1, 2, 7]])

    rows, together = data.load_call(batches, 1)
    _, alone = data.load_call(batches[1:], 1)

    assert np.array_equal(batches, rows)
    expected = [data.load_for_training(batch, 1) for batch in batches]
    for values, *each in zip(*map(tf.nest.flatten, (together, *expected)), strict=True):
        assert np.array_equal(values, np.stack(each))
    assert all(map(np.array_equal, tf.nest.flatten(alone), tf.nest.flatten(expected[1])))
