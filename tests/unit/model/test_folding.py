"""Folding changes the graph, and not the mathematics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
import tensorflow as tf

from job import errors
from job.model import folding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def float64() -> Iterator[None]:
    """Build everything in float64, so that rounding cannot hide a difference."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # note: once it was asked for, it does not follow floatx any more
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def randomize(model: keras.Model) -> None:
    """Give every BatchNormalization statistics of its own, as a trained one has."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])


def logits_and_gradients(model: keras.Model, inputs: tf.Tensor, variables: list[keras.Variable]) -> list[np.ndarray]:
    """Return the model's outputs, and the gradient of their squares in each of the variables."""
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=False)
        loss = tf.reduce_sum(outputs**2)
    return [outputs.numpy(), *(gradient.numpy() for gradient in tape.gradient(loss, variables))]


def convolutional(**options: object) -> keras.Model:
    """Return a small model with each kind of layer that matters to folding."""
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", **options)(pixels)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, **options)(x)
    x = keras.layers.BatchNormalization(scale=False)(x)
    shortcut = x = keras.layers.BatchNormalization(center=False)(x)
    x = keras.layers.Conv2D(16, 3, padding="same", dilation_rate=2, groups=4, **options)(x)
    x = keras.layers.Add()([x, shortcut])
    return keras.Model(pixels, x)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("use_bias", [False, True])
def test_fold_equals_plain(use_bias: bool) -> None:
    """Outputs and all gradients of the folded model are those of the plain one, for every kind of convolution."""
    model = convolutional(use_bias=use_bias)
    randomize(model)
    variables = [v for layer in model.layers if not _is_normalization(layer) for v in layer.trainable_variables]
    pixels = tf.constant(np.random.default_rng(0).normal(size=(2, 16, 16, 3)))

    plain = logits_and_gradients(model, pixels, variables)
    folded = logits_and_gradients(folding.fold(model), pixels, variables)

    for expected, actual in zip(plain, folded, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("size", "padding", "options", "is_folded"),
    [
        (15, 1, {"strides": 2}, True),
        (16, 1, {"strides": 2}, False),  # of "same", the first zero of each axis would be left out
        (16, ((0, 1), (0, 1)), {"strides": 2}, True),
        (16, 1, {}, True),
        (16, 2, {}, False),
        (16, 2, {"dilation_rate": 2}, True),
    ],
)
def test_fold_padding(size: int, padding: object, options: dict[str, int], is_folded: bool) -> None:
    """Zeros before a convolution are folded exactly where padding="same" puts the same ones."""
    pixels = keras.Input((size, size, 3))
    x = keras.layers.ZeroPadding2D(padding)(pixels)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, **options)(x))
    model = keras.Model(pixels, x)
    randomize(model)
    folded = folding.fold(model)
    inputs = np.random.default_rng(0).normal(size=(2, size, size, 3))

    assert is_folded != any(isinstance(layer, keras.layers.ZeroPadding2D) for layer in folded.layers)
    np.testing.assert_allclose(folded(inputs), model(inputs, training=False), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [32, 47])  # 47: odd sizes before some strides, even ones before others
def test_fold_mobilenet(size: int) -> None:
    """All 52 BatchNormalization layers of MobileNetV2 fold away, and the outputs stay within 1e-9."""
    shape = (size, size, 3)
    model = keras.applications.MobileNetV2(input_shape=shape, alpha=0.35, include_top=False, weights=None)
    randomize(model)
    folded = folding.fold(model)
    pixels = tf.constant(np.random.default_rng(0).uniform(-1, 1, (2, *shape)))

    assert 52 == sum(isinstance(layer, folding.FoldedConvolution) for layer in folded.layers)
    assert not any(map(_is_normalization, folded.layers))
    np.testing.assert_allclose(folded(pixels), model(pixels, training=False), rtol=1e-9, atol=1e-9)


def test_fold_keeps_what_does_not_follow_a_convolution() -> None:
    """A BatchNormalization behind anything but a convolution that it alone reads stays as it is."""
    folded = folding.fold(convolutional())
    pixels = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 1)(pixels)
    two_readers = keras.Model(pixels, keras.layers.Add()([keras.layers.BatchNormalization()(shared), shared]))
    activated = keras.layers.Conv2D(4, 1, activation="relu")(pixels)
    with_activation = keras.Model(pixels, keras.layers.BatchNormalization()(activated))

    assert 1 == sum(map(_is_normalization, folded.layers))
    assert 1 == sum(map(_is_normalization, folding.fold(two_readers).layers))
    assert 1 == sum(map(_is_normalization, folding.fold(with_activation).layers))


def test_fold_shares_the_variables() -> None:
    """What trains the folded model trains the plain one."""
    model = convolutional()
    folded = folding.fold(model)
    kernel = model.layers[1].kernel
    before = np.array(folded(np.ones((1, 16, 16, 3))))

    kernel.assign(kernel * 2)

    assert kernel in folded.trainable_variables
    assert not np.array_equal(before, folded(np.ones((1, 16, 16, 3))))


@pytest.mark.parametrize("use_bias", [False, True])
def test_merge_equals_plain(use_bias: bool) -> None:
    """The merged model answers as the plain one does, from variables of its own."""
    model = convolutional(use_bias=use_bias)
    randomize(model)
    merged = folding.merge(model)
    pixels = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    expected = np.array(model(pixels, training=False))

    for variable in model.variables:
        variable.assign(variable * 0)

    np.testing.assert_allclose(merged(pixels), expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(layer, folding.FoldedConvolution) for layer in merged.layers)


def _is_normalization(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def test_fold_in_another_precision() -> None:
    """Every layer with variables computes in half precision, also what is not folded, and the variables are shared."""
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(4, 1, activation="relu", name="activated")(x)
    x = keras.layers.LayerNormalization()(x) + 3.0
    x = keras.layers.Dense(5)(x) * 0.5
    model = keras.Model(pixels, keras.layers.BatchNormalization()(x))
    randomize(model)
    inputs = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)

    folded = folding.fold(model, "mixed_bfloat16")

    outputs = folded(inputs)
    assert outputs.dtype == tf.bfloat16
    assert {id(v) for v in model.variables} == {id(v) for v in folded.variables}
    assert {"float32"} == {v.dtype for v in folded.variables}
    assert "float32" == folded.layers[1].compute_dtype  # the scaling of the pixels
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), model(inputs, training=False), rtol=0.05, atol=0.05)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.cast(folded(inputs), tf.float32) ** 2)
    assert all(g is not None and g.dtype == tf.float32 for g in tape.gradient(loss, model.trainable_variables))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_fold_one_group_per_channel() -> None:
    """A grouped convolution with one group per channel becomes a depthwise one; a nested Sequential is opened."""
    pixels = keras.Input((8, 8, 3))
    stem = keras.Sequential([keras.layers.Conv2D(6, 3, name="stem"), keras.layers.BatchNormalization()])
    x = keras.layers.Conv2D(6, 3, padding="same", groups=6, activation="relu", name="grouped")(stem(pixels))
    model = keras.Model(pixels, x)
    for layer in model._flatten_layers(include_self=False):
        if _is_normalization(layer):
            layer.set_weights([np.random.default_rng(2).uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    model.get_layer("grouped").bias.assign(np.arange(6.0))
    inputs = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    expected = model(inputs, training=False)

    for other in (folding.fold(model), folding.merge(model)):
        np.testing.assert_allclose(other(inputs), expected, rtol=1e-9, atol=1e-9)
        assert not any(_is_normalization(layer) for layer in other.layers)
    assert isinstance(folding.merge(model).get_layer("grouped"), keras.layers.DepthwiseConv2D)


def test_fold_keeps_what_an_operation_or_the_output_reads() -> None:
    """A convolution that an operation that is no layer reads too, or that is an output, is not folded."""
    pixels = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(4, 1)(pixels)
    read_by_operation = keras.Model(pixels, keras.layers.BatchNormalization()(shared) + shared)
    output = keras.layers.Conv2D(4, 1)(pixels)
    read_as_output = keras.Model(pixels, [output, keras.layers.BatchNormalization()(output)])

    for model in (read_by_operation, read_as_output):
        assert 1 == sum(map(_is_normalization, folding.fold(model).layers))


def twice() -> keras.Model:
    """Return a model with a layer that is called twice."""
    pixels = keras.Input((8, 8, 3))
    layer = keras.layers.Conv2D(3, 1, name="again")
    return keras.Model(pixels, layer(layer(pixels)), name="net")


def two_inputs() -> keras.Model:
    """Return a model with two inputs."""
    inputs = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    return keras.Model(inputs, keras.layers.Add()(inputs), name="net")


@pytest.mark.parametrize(("model", "named"), [(twice, "again"), (two_inputs, "2 inputs")])
@pytest.mark.parametrize("fold", [folding.fold, folding.merge])
def test_what_cannot_be_folded_is_refused(
    model: Callable[[], keras.Model], named: str, fold: Callable[[keras.Model], keras.Model]
) -> None:
    """A layer that is called twice, or a second input, is refused by name."""
    with pytest.raises(errors.SettingsError, match=named) as caught:
        fold(model())

    assert 2 == caught.value.exit_code
    assert "net" in caught.value.message
