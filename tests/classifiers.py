"""A classifier that is quick to build, to trace and to train."""

from __future__ import annotations

import keras

from job.model.classifier import Classifier


def small_classifier() -> Classifier:
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
    x = keras.layers.Dense(8, activation="relu", name="fc1")(x)
    x = keras.layers.Dense(1, activation="sigmoid", name="output")(x)
    classifier = Classifier(keras.Model(pixels, x), base_model, ("a", "b"))
    classifier.fold()
    return classifier
