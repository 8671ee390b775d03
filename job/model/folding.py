"""BatchNormalization folded into the convolution before it.

A BatchNormalization layer in inference mode multiplies each channel by one constant and adds another. Behind a
convolution this is a convolution again: with ``scale = gamma / sqrt(moving_variance + epsilon)``,

    BN(conv(x, kernel) + bias) = conv(x, kernel * scale) + (bias - moving_mean) * scale + beta

The trainable variable stays the original kernel: the gradient flows through the product, and is the same. Since the
recipe never trains BatchNormalization, the training graph does without it (Jacob et al., 2017,
https://arxiv.org/abs/1712.05877, section 3.2).

A layer that puts zeros around a convolution's input is folded as well, where they are those of padding="same": that
saves a copy of the maps in each pass, and one of their gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


class Neighbours(NamedTuple):
    """The layers that are folded into a convolution.

    Attributes:
        normalization: behind it.
        zeros: before it; None where there is none, or it cannot be folded.
    """

    normalization: keras.layers.BatchNormalization
    zeros: keras.layers.ZeroPadding2D | None


class FoldedConvolution(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """A convolution and its neighbours as one convolution, which shares the first one's variables.

    Args:
        convolution: a Conv2D or DepthwiseConv2D without an activation.
        neighbours: what is folded into it. The values of the BatchNormalization are taken as constants, now.
        policy: Keras's dtype policy to compute in; the convolution's own by default.
    """

    def __init__(self, convolution: keras.layers.Layer, neighbours: Neighbours, policy: Any = None) -> None:
        super().__init__(name=f"{convolution.name}_folded", dtype=policy or convolution.dtype_policy)
        self.convolution = convolution
        self._zeros, normalization = neighbours.zeros, neighbours.normalization
        mean, variance = np.float64(normalization.moving_mean), np.float64(normalization.moving_variance)
        gamma = np.float64(normalization.gamma) if normalization.scale else np.ones_like(mean)
        beta = np.float64(normalization.beta) if normalization.center else np.zeros_like(mean)
        scale = gamma / np.sqrt(variance + normalization.epsilon)
        self._shift = (beta - mean * scale).astype(convolution.variable_dtype)
        self._scale = scale.astype(convolution.variable_dtype)
        self._depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)

    def merged(self) -> tuple[Any, Any]:
        """Return the kernel and the bias, [channels], of the one convolution, functions of the trainable variables."""
        layer = self.convolution
        bias = layer.bias * self._scale + self._shift if layer.use_bias else self._shift
        # note: a depthwise kernel is [height, width, channels, multiplier]
        return layer.kernel * (self._scale.reshape(layer.kernel.shape[2:]) if self._depthwise else self._scale), bias

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the convolution's; else Keras would trace `call` for it."""
        if self._zeros:
            input_shape = self._zeros.compute_output_shape(input_shape)
        return self.convolution.compute_output_shape(input_shape)

    def call(self, inputs: Any) -> Any:
        """Return the normalized convolution of `inputs`, in the data format of the layer."""
        layer = self.convolution
        kernel, bias = self.merged()
        convolve = keras.ops.depthwise_conv if self._depthwise else keras.ops.conv
        outputs = convolve(
            inputs,
            keras.ops.cast(kernel, self.compute_dtype),
            strides=layer.strides,
            padding="same" if self._zeros else layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
        if layer.data_format == "channels_first":
            bias = keras.ops.reshape(bias, (-1, 1, 1))
        return outputs + keras.ops.cast(bias, self.compute_dtype)


def fold(model: keras.Model, policy: str | None = None) -> keras.Model:
    """Return `model` with each BatchNormalization folded where it directly follows a convolution.

    The two models share their variables. The values of the BatchNormalization layers are constants of the new one, so
    fold after the weights are loaded. A BatchNormalization that does not follow a convolution stays as it is.

    Args:
        model: a functional model; the result has the same inputs and outputs.
        policy: Keras's dtype policy for the new model, "mixed_bfloat16" say; the variables stay what they are. `model`
            itself does not change.
    """
    neighbours = _neighbours(model)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in neighbours:
            return FoldedConvolution(layer, neighbours[layer.name], policy)
        if policy and not layer.weights:
            return type(layer).from_config({**layer.get_config(), "dtype": policy})
        return layer

    return _clone(model, neighbours, clone)


def merge(model: keras.Model) -> keras.Model:
    """Return a model of its own, for serving, in which the folded convolutions are plain ones with a bias.

    It has the same inputs, outputs and layer names as `model`, but for the layers that are folded.

    Args:
        model: a functional model with the weights that are to be served.
    """
    neighbours = _neighbours(model)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        changes = {}
        if layer.name in neighbours:
            changes = {"use_bias": True} | ({"padding": "same"} if neighbours[layer.name].zeros else {})
        return type(layer).from_config({**layer.get_config(), **changes})

    merged = _clone(model, neighbours, clone)
    for layer in (layer for layer in merged.layers if layer.weights):
        original = model.get_layer(layer.name)
        if layer.name in neighbours:
            folded = FoldedConvolution(original, neighbours[layer.name])
            layer.set_weights([np.asarray(value) for value in folded.merged()])
        else:
            layer.set_weights(original.get_weights())
    return merged


def _clone(
    model: keras.Model,
    neighbours: dict[str, Neighbours],
    clone: Callable[[keras.layers.Layer], keras.layers.Layer],
) -> keras.Model:
    """Return `model` with each layer replaced by its `clone`, and without the neighbours."""
    dropped = {layer.name for folded in neighbours.values() for layer in folded if layer}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in dropped else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _neighbours(model: keras.Model) -> dict[str, Neighbours]:
    """Return what can be folded: the convolution's name -> its neighbours, of which nothing else reads or is read."""
    readers = [source for layer in model.layers for source in _sources(layer)]
    found = {}
    for normalization in model.layers:
        if not isinstance(normalization, keras.layers.BatchNormalization):
            continue
        [layer] = _sources(normalization)
        if (
            isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
            and layer.activation is keras.activations.linear
            and readers.count(layer) == 1
        ):
            [before] = _sources(layer)
            zeros = before if readers.count(before) == 1 and _pads_as_same(before, layer) else None
            found[layer.name] = Neighbours(normalization, zeros)
    return found


def _pads_as_same(zeros: keras.layers.Layer, convolution: keras.layers.Layer) -> bool:
    """Whether `zeros` puts around the convolution's input what its own padding="same" would, and that puts nothing."""
    if not isinstance(zeros, keras.layers.ZeroPadding2D) or convolution.padding != "valid":
        return False
    sides = slice(2, 4) if convolution.data_format == "channels_first" else slice(1, 3)
    kernel, strides, dilation = convolution.kernel_size, convolution.strides, convolution.dilation_rate
    same = []
    for axis, size in enumerate(zeros.input.shape[sides]):
        if size is None:
            return False
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
        same.append((total // 2, total - total // 2))  # https://www.tensorflow.org/api_docs/python/tf/nn
    return zeros.data_format == convolution.data_format and list(map(tuple, zeros.padding)) == same


def _sources(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers whose outputs `layer` reads."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation for tensor in inputs]  # noqa: SLF001 (Keras has no public way to walk a graph)
