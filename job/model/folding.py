"""Folds BatchNormalization into the preceding convolution.

A BatchNormalization layer in inference mode multiplies each channel by one constant and adds another. After a
convolution, the result is again a convolution: with ``scale = gamma / sqrt(moving_variance + epsilon)``,

    BN(conv(x, kernel) + bias) = conv(x, kernel * scale) + (bias - moving_mean) * scale + beta

The original kernel remains the trainable variable: the gradient flows through the product and is the same. Since the
recipe never trains BatchNormalization, the training graph does not need it (Jacob et al., 2017,
https://arxiv.org/abs/1712.05877, section 3.2).

Zero padding before a convolution is folded as well if it equals padding="same": this saves a copy of the feature maps
in the forward pass, and one of their gradient in the backward pass.
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
        normalization: follows the convolution.
        zero_padding: precedes it; None if there is none, or it cannot be folded.
    """

    normalization: keras.layers.BatchNormalization
    zero_padding: keras.layers.ZeroPadding2D | None


class FoldedConvolution(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """A convolution and its neighbours as one convolution, which shares the original's variables.

    Args:
        convolution: a Conv2D or DepthwiseConv2D without an activation.
        neighbours: the layers to fold into it. The current values of the BatchNormalization become constants.
        policy: Keras's dtype policy for the computation; default: the convolution's own.
    """

    def __init__(self, convolution: keras.layers.Layer, neighbours: Neighbours, policy: Any = None) -> None:
        super().__init__(name=f"{convolution.name}_folded", dtype=policy or convolution.dtype_policy)
        self.convolution = convolution
        self._zero_padding, normalization = neighbours.zero_padding, neighbours.normalization
        mean, variance = np.float64(normalization.moving_mean), np.float64(normalization.moving_variance)
        gamma = np.float64(normalization.gamma) if normalization.scale else np.ones_like(mean)
        beta = np.float64(normalization.beta) if normalization.center else np.zeros_like(mean)
        scale = gamma / np.sqrt(variance + normalization.epsilon)
        self._shift = (beta - mean * scale).astype(convolution.variable_dtype)
        self._scale = scale.astype(convolution.variable_dtype)
        self._depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)

    def merged(self) -> tuple[Any, Any]:
        """Return the folded kernel and bias [channels], as functions of the trainable variables."""
        layer = self.convolution
        bias = layer.bias * self._scale + self._shift if layer.use_bias else self._shift
        # note: a depthwise kernel is [height, width, channels, multiplier]
        return layer.kernel * (self._scale.reshape(layer.kernel.shape[2:]) if self._depthwise else self._scale), bias

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the convolution's output shape; without this method, Keras would trace `call`."""
        if self._zero_padding:
            input_shape = self._zero_padding.compute_output_shape(input_shape)
        return self.convolution.compute_output_shape(input_shape)

    def call(self, inputs: Any) -> Any:
        """Return the normalized convolution of `inputs`, in the layer's data format."""
        layer = self.convolution
        kernel, bias = self.merged()
        convolve = keras.ops.depthwise_conv if self._depthwise else keras.ops.conv
        outputs = convolve(
            inputs,
            keras.ops.cast(kernel, self.compute_dtype),
            strides=layer.strides,
            padding="same" if self._zero_padding else layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
        if layer.data_format == "channels_first":
            bias = keras.ops.reshape(bias, (-1, 1, 1))
        return outputs + keras.ops.cast(bias, self.compute_dtype)


def fold(model: keras.Model, policy: str | None = None) -> keras.Model:
    """Return `model` with each BatchNormalization that directly follows a convolution folded into it.

    The two models share their variables. The values of the BatchNormalization layers become constants of the new model:
    load the weights before folding. A BatchNormalization that does not follow a convolution is left unchanged.

    Args:
        model: a functional model, left unchanged; the result has the same inputs and outputs.
        policy: Keras's dtype policy for the new model, such as "mixed_bfloat16"; the dtype of the variables is kept.
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
    """Return an independent model for serving, in which the folded convolutions are plain convolutions with a bias.

    It has the same inputs, outputs and layer names as `model`, except for the layers that are folded away.

    Args:
        model: a functional model with the weights to serve.
    """
    neighbours = _neighbours(model)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        changes = {}
        if layer.name in neighbours:
            changes = {"use_bias": True} | ({"padding": "same"} if neighbours[layer.name].zero_padding else {})
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
    """Return `model` with each layer replaced by `clone(layer)`, and without the neighbours."""
    removed = {layer.name for folded in neighbours.values() for layer in folded if layer}

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if layer.name in removed else layer(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _neighbours(model: keras.Model) -> dict[str, Neighbours]:
    """Return what can be folded: convolution name -> neighbours. No other layer may read the intermediate outputs."""
    all_sources = [source for layer in model.layers for source in _sources(layer)]
    neighbours = {}
    for normalization in model.layers:
        if not isinstance(normalization, keras.layers.BatchNormalization):
            continue
        [layer] = _sources(normalization)
        if (
            isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
            and layer.activation is keras.activations.linear
            and all_sources.count(layer) == 1
        ):
            [source] = _sources(layer)
            is_foldable = all_sources.count(source) == 1 and _equals_same_padding(source, layer)
            neighbours[layer.name] = Neighbours(normalization, source if is_foldable else None)
    return neighbours


def _equals_same_padding(zero_padding: keras.layers.Layer, convolution: keras.layers.Layer) -> bool:
    """Return whether `zero_padding` and an unpadded convolution equal that convolution with padding="same"."""
    if not isinstance(zero_padding, keras.layers.ZeroPadding2D) or convolution.padding != "valid":
        return False
    spatial = slice(2, 4) if convolution.data_format == "channels_first" else slice(1, 3)
    kernel, strides, dilation = convolution.kernel_size, convolution.strides, convolution.dilation_rate
    same = []
    for axis, size in enumerate(zero_padding.input.shape[spatial]):
        if size is None:
            return False
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        total = max((-(-size // strides[axis]) - 1) * strides[axis] + extent - size, 0)
        same.append((total // 2, total - total // 2))  # https://www.tensorflow.org/api_docs/python/tf/nn
    return zero_padding.data_format == convolution.data_format and list(map(tuple, zero_padding.padding)) == same


def _sources(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers whose outputs `layer` reads."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation for tensor in inputs]  # noqa: SLF001 (Keras has no public way to walk a graph)
