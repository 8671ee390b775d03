"""The heads that answer for the training images they have not seen."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
from classifiers import small_classifier
from short_stages import same_arrays

from job import errors
from job.config.settings import Settings, StageSettings
from job.observability.progress import Progress
from job.training.cross_validation import FOLDS, FoldHeads, folds, has_seen_label
from job.training.examples import Examples, create_examples
from job.training.stages import order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.model.classifier import Classifier

IMAGES = 40
FEATURES = np.random.default_rng(0).normal(0, 1, (IMAGES, 8)).astype(np.float32)
FOLD = (np.arange(IMAGES) * 7 % FOLDS).astype(np.int32)
SETTINGS = StageSettings(epochs=3, learning_rate=1e-2, batch_size=16)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """Return a classifier with features of length 8."""
    return small_classifier()


def stage_one(classifier: Classifier, labels: NDArray[Any]) -> Examples:
    """Return examples of stage 1 with the features."""
    from types import SimpleNamespace

    images = SimpleNamespace(pixels=None, manifest=SimpleNamespace(label=labels))
    rows_of = {"train": np.arange(IMAGES)[::-1], "validation": np.arange(0)}
    return create_examples(classifier, images, FEATURES, rows_of, settings=Settings())["feature_extraction"]


def answers(classifier: Classifier, labels: NDArray[Any], learning_rate: float = 1e-2) -> NDArray[Any]:
    """Train the heads, and return their answers for the train split."""
    heads = FoldHeads(classifier, stage_one(classifier, labels), FOLD)
    heads.train(SETTINGS, learning_rate, Progress())
    return np.concatenate(list(heads.predict()))


LABELS = (FEATURES[:, 0] > 0).astype(np.int32)


def test_folds() -> None:
    """Images of one hash share a fold, and each fold has about a fifth of the others."""
    hashes = np.random.default_rng(0).integers(0, 2**64, 1000, np.uint64)

    fold = folds(np.concatenate([hashes, hashes]))

    assert np.array_equal(fold[:1000], fold[1000:])
    assert set(range(FOLDS)) == set(fold.tolist())
    assert min(np.bincount(fold)) > 300


def test_labels_that_a_head_has_not_seen() -> None:
    """An image whose label is in no other fold is not answered for by a head that knows the label."""
    assert [True, True, False, False, True, True] == has_seen_label(
        np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 3, 3, 2, 4])
    ).tolist()


def test_a_head_does_not_see_its_images(classifier: Classifier) -> None:
    """Other labels of a fold leave the answers for this fold bit for bit as they are, and change all others."""
    examples = stage_one(classifier, LABELS)
    changed = LABELS.copy()
    changed[examples.train[FOLD == 2]] ^= 1

    before, after = answers(classifier, LABELS), answers(classifier, changed)

    same = (before == after).all(axis=1)
    assert np.array_equal(FOLD == 2, same)


@pytest.mark.slow
@pytest.mark.parametrize("head", [0, 4])
def test_heads_are_trained_as_keras_does(classifier: Classifier, head: int) -> None:
    """The answers are those of a Keras head that is trained with Adam on the batches without the fold."""
    examples = stage_one(classifier, LABELS)
    heads = FoldHeads(classifier, examples, FOLD)
    units = heads._units
    columns = slice(head * units, (head + 1) * units)
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(units, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(hidden))
    fc1, output = heads._fc1.numpy()[:, columns], heads._output.numpy()[head]
    model.set_weights([fc1, np.zeros(units), output, np.zeros(1)])
    model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")
    for epoch in range(SETTINGS.epochs):
        positions = order(7, "feature_extraction", epoch, IMAGES)
        for start in range(0, IMAGES, 16):
            batch = positions[start : start + 16]
            rows = examples.train[batch[FOLD[batch] != head]]
            model.train_on_batch(FEATURES[rows], LABELS[rows, None])
    expected = model(FEATURES[examples.train[FOLD == head]]).numpy()[:, 0]

    heads.train(SETTINGS, 1e-2, Progress())

    seen = np.concatenate(list(heads.predict()))[FOLD == head]
    np.testing.assert_allclose(expected, seen[:, 1], atol=1e-5)
    np.testing.assert_allclose(1, seen.sum(axis=1), atol=1e-6)


@pytest.mark.slow
def test_the_classifier_is_left_unchanged(classifier: Classifier) -> None:
    """Neither the weights nor the optimizer of the run are touched, and the answers are the same each time."""
    before = classifier.state()

    first, second = answers(classifier, LABELS), answers(classifier, LABELS)

    assert same_arrays(before, classifier.state())
    assert np.array_equal(first, second)


@pytest.mark.slow
def test_dropout(classifier: Classifier) -> None:
    """The head's dropout is that of the heads, and is off when they answer."""
    classifier.dropout = 0.5
    try:
        dropped, again = answers(classifier, LABELS), answers(classifier, LABELS)
    finally:
        classifier.dropout = 0.0

    assert np.array_equal(dropped, again)
    assert not np.allclose(dropped, answers(classifier, LABELS))


def test_not_finite(classifier: Classifier) -> None:
    """A loss that is not finite ends the training, as in a stage."""
    with pytest.raises(errors.NotFiniteError):
        answers(classifier, LABELS, learning_rate=1e38)


def test_a_check_ends_the_training(classifier: Classifier) -> None:
    """The training ends with what the check raises, within a batch."""

    def stop() -> None:
        raise errors.StoppedError("taken over", remedy="")

    heads = FoldHeads(classifier, stage_one(classifier, LABELS), FOLD)
    with pytest.raises(errors.StoppedError):
        heads.train(SETTINGS, 1e-2, Progress(), check=stop)


def test_empty_share_of_a_batch(classifier: Classifier) -> None:
    """A batch that is all of one fold leaves its head without a gradient, not without a number."""
    examples = dataclasses.replace(stage_one(classifier, LABELS), seed=3)
    heads = FoldHeads(classifier, examples, FOLD)
    heads.train(StageSettings(epochs=1, learning_rate=1e-2, batch_size=1), 1e-2, Progress())

    assert np.isfinite(np.concatenate(list(heads.predict()))).all()


def test_heads_without_a_hidden_layer() -> None:
    """With `head_units: 0` each head is linear: its answers are the sigmoid of one matrix, and it is trained."""
    linear = small_classifier(head_units=0)
    examples = stage_one(linear, LABELS)
    heads = FoldHeads(linear, examples, FOLD)
    before = heads._output.numpy()

    heads.train(SETTINGS, 1e-2, Progress())

    kernel, bias = heads._output.numpy(), heads._output_bias.numpy()
    assert not np.array_equal(before, kernel)
    assert (5, 8, 1) == kernel.shape
    logits = np.einsum("nf,nfo->no", FEATURES[examples.train], kernel[FOLD]) + bias[FOLD, 0]
    expected = 1 / (1 + np.exp(-logits[:, 0]))
    np.testing.assert_allclose(expected, np.concatenate(list(heads.predict()))[:, 1], atol=1e-5)
