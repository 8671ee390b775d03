"""A classifier that is quick to build, to trace and to train, and pictures to train it on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from job.config.settings import Settings
from job.model.classifier import Classifier, Network, create_network
from job.training.examples import Examples, create_examples

if TYPE_CHECKING:
    import pytest

    from job.config.settings import FineTuningSettings, ModelSettings, StageName
    from job.runtime.device import Precision

LABELS = np.array([0, 1] * 6, np.int32)
"""Of the pictures of `examples`."""


def small_classifier(
    fine_tuning: FineTuningSettings | None = None, *, head_units: int = 8, dropout: float = 0
) -> Classifier:
    """Return a classifier as the job builds it, but for its base model: two convolutions with BatchNormalization."""
    keras.utils.set_random_seed(7)
    maps = inputs = keras.Input((32, 32, 3))
    for name, layer in (("a", keras.layers.Conv2D), ("b", keras.layers.SeparableConv2D)):
        maps = layer(8, 3, strides=4, name=name)(maps)
        maps = keras.layers.BatchNormalization(name=f"{name}_BN")(maps)
        maps = keras.layers.ReLU()(maps)
    base_model = keras.Model(inputs, maps)
    pixels = keras.Input((32, 32, 3), dtype="uint8")
    x = base_model(keras.layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(pixels), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    if head_units:
        x = keras.layers.Dense(head_units, activation="relu", name="fc1")(x)
    x = keras.layers.Dense(1, activation="sigmoid", name="output")(x)
    network = Network(keras.Model(pixels, x), base_model)
    return Classifier(network, ("a", "b"), pretrained=True, fine_tuning=fine_tuning)


def part_dependent_classifier(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """Return a small classifier whose features depend on how many images are computed at once.

    So do the last bits of a large one's.
    """
    classifier = small_classifier()
    plain = classifier.features

    def features_of_a_part(pixels: tf.Tensor) -> tf.Tensor:
        return plain(pixels) + tf.cast(tf.shape(pixels)[0], tf.float32)

    monkeypatch.setattr(classifier, "features", features_of_a_part)
    return classifier


def new_classifier(settings: ModelSettings, labels: tuple[str, ...], *, seed: int) -> Classifier:
    """Return a classifier with new weights."""
    return Classifier(create_network(settings, labels, seed=seed), labels, pretrained=True)


def varied_classifier(settings: ModelSettings, labels: tuple[str, ...]) -> Classifier:
    """Return a classifier with new weights whose answers depend on the image.

    With the moving statistics of a new model, random features are nearly all alike: here, BatchNormalization has the
    statistics of one batch of noise.
    """
    network = create_network(settings, labels, seed=7)
    layers = [layer for layer in network.base_model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    shape = (16, settings.image_size, settings.image_size, 3)
    network.base_model(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return Classifier(network, labels, pretrained=True)


def refolded(classifier: Classifier, *, training_precision: Precision = "float32", xla: bool = False) -> Classifier:
    """Return a classifier of the same variables with another training precision, or with XLA."""
    network = Network(classifier.model, classifier.base_model)
    return Classifier(
        network, classifier.labels, pretrained=classifier.pretrained, training_precision=training_precision, xla=xla
    )


def examples(classifier: Classifier, stage: StageName, settings: Settings | None = None) -> Examples:
    """Return twelve pictures of noise, dark ones and bright ones: eight to learn from, four to measure with."""
    random = np.random.default_rng(0)
    pixels = (random.integers(0, 128, (12, 32, 32, 3)) + 127 * LABELS[:, None, None, None]).astype(np.uint8)
    images = SimpleNamespace(pixels=lambda rows: pixels[rows], manifest=SimpleNamespace(label=LABELS))
    features = classifier.features(tf.constant(pixels)).numpy()
    frozen = classifier.frozen_maps(tf.constant(pixels)).numpy() if classifier.frozen_part else None
    rows_of = {"train": np.arange(8), "validation": np.arange(8, 12)}
    return create_examples(classifier, images, features, rows_of, settings=settings or Settings(), frozen=frozen)[stage]
