"""Folds BatchNormalization into the preceding convolution.

A BatchNormalization layer in inference mode multiplies each channel by one constant and adds another. After a
convolution, the result is again a convolution: with ``scale = gamma / sqrt(moving_variance + epsilon)``,

    BN(conv(x, kernel) + bias) = conv(x, kernel * scale) + (bias - moving_mean) * scale + beta

The original kernel remains the trainable variable: the gradient flows through the product and is the same. Since the
recipe never trains BatchNormalization, the training graph does not need it (Jacob et al., 2017,
https://arxiv.org/abs/1712.05877, section 3.2).

Zero padding before a convolution is folded as well if it equals padding="same": this saves a copy of the feature maps
in the forward pass, and one of their gradient in the backward pass.

A convolution with one group per channel (ConvNeXt) becomes a depthwise convolution, which is the same sum: on the CPU,
Keras compiles grouped convolutions with XLA, and TensorFlow Lite has none.
"""

from __future__ import annotations

import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from job import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


class DepthwiseForm(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """A convolution with one group per channel as a depthwise convolution, which shares the original's variables.

    Args:
        convolution: a Conv2D; see `_is_depthwise`.
        policy: Keras's dtype policy for the computation; default: the convolution's own.
    """

    def __init__(self, convolution: keras.layers.Conv2D, policy: Any = None) -> None:
        super().__init__(name=f"{convolution.name}_depthwise", dtype=policy or convolution.dtype_policy)
        self.convolution = convolution

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the convolution's output shape."""
        return self.convolution.compute_output_shape(input_shape)

    def call(self, inputs: Any) -> Any:
        """Return the convolution of `inputs`, [n, height, width, channels]."""
        layer = self.convolution
        outputs = keras.ops.depthwise_conv(
            inputs,
            # [height, width, 1, channels] -> [height, width, channels, 1]
            keras.ops.transpose(keras.ops.cast(layer.kernel, self.compute_dtype), (0, 1, 3, 2)),
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
        if layer.use_bias:
            outputs = outputs + keras.ops.cast(layer.bias, self.compute_dtype)
        return layer.activation(outputs)


class InPrecision(keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """A layer with variables, computed in another precision: it shares the variables, whose dtype is kept.

    Args:
        layer: built.
        policy: Keras's dtype policy for the computation.
    """

    def __init__(self, layer: keras.layers.Layer, policy: str) -> None:
        super().__init__(name=layer.name, dtype=policy)
        self.layer = layer
        self._takes_training = "training" in inspect.signature(layer.call).parameters

    def compute_output_spec(self, *_: Any, **__: Any) -> keras.KerasTensor:
        """Return shape and dtype of the outputs, without tracing `call`."""
        return keras.KerasTensor(self.layer.output.shape, dtype=self.compute_dtype)

    def call(self, inputs: Any, **_: Any) -> Any:
        """Return the layer's outputs in inference mode, in this layer's precision; masks are not used."""
        # note: `call`, not the layer itself, which would cast inputs and variables to its own precision
        outputs = self.layer.call(inputs, **({"training": False} if self._takes_training else {}))
        return keras.ops.cast(outputs, self.compute_dtype)


def fold(model: keras.Model, policy: str | None = None) -> keras.Model:
    """Return `model` with each BatchNormalization that directly follows a convolution folded into it.

    The two models share their variables. The values of the BatchNormalization layers become constants of the new model:
    load the weights before folding. A BatchNormalization that does not follow a convolution is left unchanged.
    Nested Sequential models become part of the new model's graph.

    Args:
        model: a functional model, left unchanged; the result has the same inputs and outputs.
        policy: Keras's dtype policy for the new model, such as "mixed_bfloat16"; the dtype of the variables is kept,
            and the scaling of the pixels stays in float32.

    Raises:
        errors.SettingsError: the model has several inputs, or a layer that is called more than once.
    """
    model = _flattened(model)
    neighbours = _neighbours(model)

    def clone(operation: keras.Operation) -> keras.Operation:
        if operation.name in neighbours:
            return FoldedConvolution(operation, neighbours[operation.name], policy)
        if _is_depthwise(operation):
            return DepthwiseForm(operation, policy)
        # An operation that is not a layer computes in the precision of its inputs.
        if not (policy and isinstance(operation, keras.layers.Layer)) or isinstance(operation, _SCALING):
            return operation
        if operation.weights:
            return InPrecision(operation, policy)
        return type(operation).from_config({**operation.get_config(), "dtype": policy})

    return _clone(model, neighbours, clone)


def merge(model: keras.Model) -> keras.Model:
    """Return an independent model for serving, in which the folded convolutions are plain convolutions with a bias.

    It has the same inputs, outputs and layer names as `model`, except for the layers that are folded away. Nested
    Sequential models become part of its graph.

    Args:
        model: a functional model with the weights to serve.

    Raises:
        errors.SettingsError: as `fold` does.
    """
    model = _flattened(model)
    neighbours = _neighbours(model)

    def clone(operation: keras.Operation) -> keras.Operation:
        if not isinstance(operation, keras.layers.Layer):
            return operation
        if operation.name not in neighbours and _is_depthwise(operation):
            names = ("name", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "activation")
            config = operation.get_config()
            return keras.layers.DepthwiseConv2D(
                **{name: config[name] for name in (*names, "use_bias")}, dtype=operation.dtype_policy
            )
        changes = {}
        if operation.name in neighbours:
            changes = {"use_bias": True} | ({"padding": "same"} if neighbours[operation.name].zero_padding else {})
        return type(operation).from_config({**operation.get_config(), **changes})

    merged = _clone(model, neighbours, clone)
    for layer in (layer for layer in merged.layers if layer.weights):
        original = model.get_layer(layer.name)
        if layer.name in neighbours:
            folded = FoldedConvolution(original, neighbours[layer.name])
            layer.set_weights([np.asarray(value) for value in folded.merged()])
        elif _is_depthwise(original):
            kernel, *bias = original.get_weights()
            layer.set_weights([kernel.transpose(0, 1, 3, 2), *bias])
        else:
            layer.set_weights(original.get_weights())
    return merged


_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
"""Layers that scale pixels: in half precision, the pixels would lose bits before the first convolution."""


def _flattened(model: keras.Model) -> keras.Model:
    """Return a model of the same layers without nested Sequential models; `model` itself if it has none."""
    if not any(isinstance(layer, keras.Sequential) for layer in model.layers):
        return model

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(operation, keras.Sequential):
            return operation(*args, **kwargs)
        outputs = args[0]
        for layer in operation.layers:
            outputs = layer(outputs)
        return outputs

    return keras.models.clone_model(model, clone_function=lambda operation: operation, call_function=call)


def _clone(
    model: keras.Model,
    neighbours: dict[str, Neighbours],
    clone: Callable[[keras.Operation], keras.Operation],
) -> keras.Model:
    """Return `model` with each operation replaced by `clone(operation)`, and without the neighbours."""
    removed = {layer.name for folded in neighbours.values() for layer in folded if layer}

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        return args[0] if operation.name in removed else operation(*args, **kwargs)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _neighbours(model: keras.Model) -> dict[str, Neighbours]:
    """Return what can be folded: convolution name -> neighbours. Nothing else may read the intermediate outputs."""
    sources = _sources(model)
    readers = Counter(source for inputs in sources.values() for source in inputs)
    readers.update(producer(tensor) for tensor in model.outputs)
    neighbours = {}
    for normalization in sources:
        if not isinstance(normalization, keras.layers.BatchNormalization):
            continue
        [layer] = sources[normalization]
        if (
            isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
            and layer.activation is keras.activations.linear
            and readers[layer] == 1
        ):
            [source] = sources[layer]
            is_foldable = readers[source] == 1 and _equals_same_padding(source, layer)
            neighbours[layer.name] = Neighbours(normalization, source if is_foldable else None)
    return neighbours


def _sources(model: keras.Model) -> dict[keras.Operation, list[keras.Operation]]:
    """Return each operation of the model -> the operations whose outputs it reads, in the order of the graph.

    Raises:
        errors.SettingsError: the model has several inputs, or an operation that is called more than once.
    """
    if len(model.inputs) != 1:
        raise _unreadable(model.name, f"it has {len(model.inputs)} inputs")
    sources: dict[keras.Operation, list[keras.Operation]] = {}
    for node in nodes(model):
        if node.operation in sources:
            raise _unreadable(model.name, f"its layer {node.operation.name} is called more than once")
        sources[node.operation] = [producer(tensor) for tensor in node.input_tensors]
    return sources


def nodes(model: keras.Model) -> Iterator[Any]:
    """Yield the calls of the model's operations, in the order of the graph."""
    depths = model._nodes_by_depth  # noqa: SLF001 (Keras has no public way to walk a graph)
    for depth in sorted(depths, reverse=True):
        yield from depths[depth]


def producer(tensor: keras.KerasTensor) -> keras.Operation:
    """Return the operation whose output a tensor is."""
    return tensor._keras_history.operation  # noqa: SLF001


def _unreadable(model: str, problem: str) -> errors.SettingsError:
    return errors.SettingsError(
        f"the backbone {model} cannot be folded: {problem}; expected one input, and each layer called once",
        remedy="set model.backbone to one of those that finetune run --help lists",
    )


def _is_depthwise(operation: keras.Operation) -> bool:
    """Return whether an operation is a convolution with channels last and one group per channel."""
    return (
        isinstance(operation, keras.layers.Conv2D)
        and operation.groups == operation.filters > 1
        and operation.kernel.shape[2] == 1
        and operation.data_format == "channels_last"
    )


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
