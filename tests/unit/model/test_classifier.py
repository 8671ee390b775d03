"""The model is the recipe's, to the layer."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import light_runs
import numpy as np
import pytest
import tensorflow as tf
from classifiers import new_classifier

from job.config.settings import FineTuningSettings, ModelSettings
from job.model.classifier import Classifier, create_network, summary

SMALL = ModelSettings(alpha=0.35, image_size=32, weights="none")


@pytest.fixture(scope="module")
def binary() -> Classifier:
    """A small classifier of two labels."""
    return _folded(("cats", "dogs"))


@pytest.fixture(scope="module")
def ternary() -> Classifier:
    """A small classifier of three labels."""
    return _folded(("a", "b", "c"))


def _folded(labels: tuple[str, ...]) -> Classifier:
    return new_classifier(SMALL, labels, seed=7)


def pixels(n: int = 5) -> np.ndarray:
    """Return random pixels."""
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)


def test_pixels_are_scaled_as_the_pretrained_weights_need_it(binary: Classifier) -> None:
    """uint8 pixels become what the backbone was trained on: -1 to 1, as Keras preprocesses images for MobileNetV2."""
    values = np.arange(256, dtype=np.uint8)
    scaled = binary.rescaling(tf.constant(values)).numpy()

    assert (-1.0, 1.0) == (scaled[0], scaled[255])
    expected = keras.applications.mobilenet_v2.preprocess_input(values.astype(np.float32))
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_head_for_two_labels(binary: Classifier) -> None:
    """Two labels have one sigmoid output behind 50 rectified units."""
    assert (50, "relu") == (binary.fc1.units, binary.fc1.activation.__name__)
    assert (1, "sigmoid") == (binary.output.units, binary.output.activation.__name__)


def test_head_for_more_labels(ternary: Classifier) -> None:
    """More labels have a softmax over all of them."""
    assert (3, "softmax") == (ternary.output.units, ternary.output.activation.__name__)


@pytest.mark.parametrize("labels", ["binary", "ternary"])
def test_probabilities_are_the_keras_model_s(labels: str, request: pytest.FixtureRequest) -> None:
    """The functions that training uses are the mathematics of the Keras model, and give a column per label."""
    classifier = request.getfixturevalue(labels)
    expected = np.array(classifier.model(pixels()))
    if labels == "binary":
        expected = np.concatenate([1 - expected, expected], axis=1)

    probabilities = classifier.probabilities(classifier.logits(tf.constant(pixels()))).numpy()

    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("labels", ["binary", "ternary"])
def test_losses_are_keras_s(labels: str, request: pytest.FixtureRequest) -> None:
    """The loss is binary or categorical cross-entropy, as Keras computes it from probabilities."""
    classifier = request.getfixturevalue(labels)
    truth = np.array([0, 1, 1, 0, 1], np.int32)
    outputs = classifier.model(pixels())
    if labels == "binary":
        expected = keras.losses.binary_crossentropy(truth[:, None], outputs)
    else:
        expected = keras.losses.sparse_categorical_crossentropy(truth, outputs)

    losses = classifier.losses(classifier.logits(tf.constant(pixels())), tf.constant(truth))

    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("labels", ["binary", "ternary"])
def test_smoothed_losses_are_keras_s(labels: str, request: pytest.FixtureRequest) -> None:
    """With label smoothing the loss is that of Keras, also for the single output of two labels."""
    classifier = request.getfixturevalue(labels)
    truth = np.array([0, 1, 1, 0, 1], np.int32)
    outputs = classifier.model(pixels())
    if labels == "binary":
        expected = keras.losses.binary_crossentropy(truth[:, None], outputs, label_smoothing=0.2)
    else:
        targets = keras.utils.to_categorical(truth, 3)
        expected = keras.losses.categorical_crossentropy(targets, outputs, label_smoothing=0.2)

    logits = classifier.logits(tf.constant(pixels()))
    losses = classifier.losses(logits, tf.constant(truth), label_smoothing=0.2)

    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_weighted_losses(ternary: Classifier) -> None:
    """The loss of an image is multiplied by the weight of its label."""
    truth = tf.constant(np.array([0, 2, 1, 0, 2], np.int32))
    logits = ternary.logits(tf.constant(pixels()))

    weighted = ternary.losses(logits, truth, class_weights=np.float32([1, 2, 5]))

    np.testing.assert_allclose(weighted, np.float32([1, 5, 2, 1, 5]) * ternary.losses(logits, truth), rtol=1e-6)


@pytest.mark.parametrize("labels", ["binary", "ternary"])
def test_predictions_are_the_most_probable_labels(labels: str, request: pytest.FixtureRequest) -> None:
    """The predicted label is the one with the highest probability."""
    classifier = request.getfixturevalue(labels)
    logits = tf.constant(np.random.default_rng(0).normal(size=(9, classifier.output.units)).astype(np.float32))

    expected = classifier.probabilities(logits).numpy().argmax(axis=1)

    assert expected.tolist() == classifier.predictions(logits).numpy().tolist()


def test_stage_1_trains_the_head(binary: Classifier) -> None:
    """In feature_extraction kernel and bias of the two dense layers are trained, and nothing else."""
    binary.set_trainable("feature_extraction")

    assert ["fc1/kernel", "fc1/bias", "output/kernel", "output/bias"] == [
        v.path for v in binary.model.trainable_variables
    ]


def test_stage_2_trains_all_but_normalization(binary: Classifier) -> None:
    """In fine_tuning the 52 convolutions are trained too, and no variable of the 52 BatchNormalization layers."""
    binary.set_trainable("fine_tuning")
    trainable = {v.path for v in binary.model.trainable_variables}
    normalization = {v.path for layer in binary.normalizations() for v in layer.variables}

    assert 4 + 52 == len(trainable)
    assert 4 * 52 == len(normalization)
    assert not trainable & normalization


@pytest.mark.slow
def test_dropout_is_a_function_of_its_seed() -> None:
    """The same seed drops the same features, another one others, and none drops none."""
    classifier = new_classifier(SMALL.model_copy(update={"dropout": 0.5}), ("a", "b"), seed=7)
    features = tf.ones((4, classifier.feature_size))
    once, again, other, none = (
        classifier.head_logits(features, seed if seed is None else tf.constant(seed)).numpy().tolist()
        for seed in ((1, 2), (1, 2), (1, 3), None)
    )

    assert once == again
    assert once != other
    assert 1 == len({tuple(row) for row in none})
    assert classifier.model.get_layer("dropout").rate == 0.5


def test_dropout_is_keras_s(binary: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is the share of features that are dropped, and the others are scaled up, as Keras's layer does it."""
    monkeypatch.setattr(binary, "dropout", 0.2)
    monkeypatch.setattr(binary, "fc1", tf.identity)
    monkeypatch.setattr(binary, "output", SimpleNamespace(kernel=tf.eye(1000), bias=0.0))
    dropped = binary.head_logits(tf.ones((10, 1000)), tf.constant((1, 2))).numpy()
    expected = keras.layers.Dropout(0.2, seed=1)(tf.ones((10, 1000)), training=True).numpy()

    assert np.unique(expected).tolist() == np.unique(dropped).tolist()
    assert [0.2, 0.2] == pytest.approx([(values == 0).mean() for values in (dropped, expected)], abs=0.02)


def first_weights(settings: ModelSettings, seed: int) -> dict[str, np.ndarray]:
    """Return the weights of a new network: path -> value."""
    network = create_network(settings, ("a", "b"), seed=seed)
    return {variable.path: variable.numpy() for variable in network.model.variables}


@pytest.mark.slow
def test_create_is_seeded() -> None:
    """The same seed gives the same first weights, another one others."""
    with light_runs.here("keras.src.applications.mobilenet_v2"):
        first, second, third = (first_weights(SMALL, seed) for seed in (7, 7, 8))
        pretrained = first_weights(SMALL.model_copy(update={"weights": "imagenet"}), 7)

    assert all(np.array_equal(first[path], second[path]) for path in first)
    assert not np.array_equal(first["fc1/kernel"], third["fc1/kernel"])
    for path in ("fc1/kernel", "output/kernel"):
        assert np.array_equal(first[path], pretrained[path])


@pytest.mark.slow
def test_kernels_are_drawn_independently() -> None:
    """No two kernels of the same shape have the same first values."""
    kernels = [value for path, value in first_weights(SMALL, 7).items() if "kernel" in path]
    shapes = {kernel.shape for kernel in kernels}

    assert len(shapes) < len(kernels)
    assert len(kernels) == len({kernel.tobytes() for kernel in kernels})


def test_state_round_trip(binary: Classifier) -> None:
    """A state that was taken can be loaded again, whatever happened in between."""
    before = binary.state()
    for variable in binary.model.variables:
        variable.assign(variable + 1)
    binary.load_state(before)

    assert all(np.array_equal(value, before[path]) for path, value in binary.state().items())


@pytest.mark.slow
def test_summary_shows_the_flags_of_both_stages() -> None:
    """The summary lists every layer with its trainable flag in each stage, and the totals."""
    text = summary(SMALL)
    lines = {line.split()[0]: line.split() for line in text.splitlines()}

    assert ["no", "yes"] == lines["block_1_expand"][-2:]
    assert ["no", "no"] == lines["block_1_expand_BN"][-2:]
    assert ["yes", "yes"] == lines["fc1"][-2:]
    assert ["yes", "yes"] == lines["output"][-2:]
    assert "474,309 parameters; trainable: 64,101 in feature_extraction, 446,149 in fine_tuning" in text
    assert "for two labels is one column, the probability of the second label" in text


@pytest.mark.slow
def test_head_without_a_hidden_layer() -> None:
    """With `head_units: 0` the features lead to the output: the head is one dense layer behind the dropout."""
    classifier = new_classifier(SMALL.model_copy(update={"head_units": 0, "dropout": 0.5}), ("a", "b"), seed=7)
    features = np.random.default_rng(0).normal(size=(3, 1280)).astype(np.float32)
    names = [layer.name for layer in classifier.model.layers]

    assert ["pooling", "dropout", "output"] == names[-3:]
    assert classifier.fc1 is None
    assert ["output/kernel", "output/bias"] == list(classifier.head_state())
    expected = features @ classifier.output.kernel.numpy() + classifier.output.bias.numpy()
    np.testing.assert_allclose(expected, classifier.head_logits(tf.constant(features)), atol=1e-5)
    classifier.set_trainable("feature_extraction")
    assert ["output/kernel", "output/bias"] == [v.path for v in classifier.model.trainable_variables]


@pytest.mark.slow
def test_summary_of_a_trained_top() -> None:
    """The summary shows that the layers before `from_layer` are frozen in both stages."""
    lines = {
        line.split()[0]: line.split()
        for line in summary(SMALL, FineTuningSettings(from_layer="block_13_expand")).splitlines()
    }

    assert ["no", "no"] == lines["block_12_project"][-2:]
    assert ["no", "yes"] == lines["block_13_expand"][-2:]
    assert ["no", "no"] == lines["block_13_expand_BN"][-2:]
