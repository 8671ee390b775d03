"""``model.onnx``: the classifier for ONNX Runtime and other programs that read ONNX.

It takes ``pixels``: uint8 [n, height, width, 3], 0 to 255, of any size, and returns ``probabilities``: float32
[n, labels]. The packages of the extra ``onnx`` are required.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime
import tensorflow as tf
import tf2onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

OPSET = 17
"""Version of ONNX's operators: that of ONNX 1.12 (2022), which ONNX Runtime reads since version 1.12."""

DIMENSIONS = {"pixels": ("images", "height", "width"), "probabilities": ("images",)}
"""Names of the dimensions of the input and of the output that have no fixed size, from the first on."""


def convert(served: Any, calibration: Sequence[NDArray[Any]]) -> bytes:  # noqa: ARG001  # as tflite.convert_int8
    """Return the model, serialized.

    Args:
        served: the loaded SavedModel.
        calibration: not used.
    """
    [concrete] = served.classify.concrete_functions
    [resized], _ = concrete.structured_input_signature

    def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": served.classify(resize(pixels, resized.shape[1]))}

    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8, "pixels")]
    function = tf.function(answer, input_signature=signature, autograph=False)
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, DIMENSIONS[value.name], strict=False):
            dimension.dim_param = name
    serialized: bytes = model.SerializeToString()
    return serialized


def resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Resize as `job.data.decode.resize` does, to the bit, by operations that ONNX Runtime computes alike.

    ONNX's own operator Resize rounds otherwise, so that single pixels differ by one.

    Args:
        pixels: uint8 [n, height, width, 3].
        size: height and width of the result.

    Returns:
        float32 [n, size, size, 3], whole numbers.
    """
    height, width = tf.unstack(tf.shape(pixels)[1:3])
    top, bottom, down = _neighbours(height, size)
    left, right, across = _neighbours(width, size)

    def row(index: tf.Tensor) -> tf.Tensor:
        pixels_of_row = tf.gather(pixels, index, axis=1)
        first, second = (tf.cast(tf.gather(pixels_of_row, column, axis=2), tf.float32) for column in (left, right))
        return first + (second - first) * across[:, None]

    upper = row(top)
    return tf.round(upper + (row(bottom) - upper) * down[:, None, None])


def _neighbours(length: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the two pixels of an axis between which each new pixel lies, int32 [size], and where, float32 [size]."""
    # note: the division as float64, since TensorFlow's optimizer multiplies with the reciprocal instead
    scale = tf.cast(tf.cast(length, tf.float64) / size, tf.float32)
    position = (tf.range(size, dtype=tf.float32) + 0.5) * scale - 0.5
    lower = tf.floor(position)
    below = tf.cast(tf.maximum(lower, 0), tf.int32)
    above = tf.minimum(tf.cast(tf.math.ceil(position), tf.int32), length - 1)
    return below, above, position - lower


class Model:
    """A converted model.

    Args:
        content: what `convert` returned.
    """

    def __init__(self, content: bytes) -> None:
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def probabilities(self, pixels: tf.Tensor) -> NDArray[Any]:
        """Return the probabilities, float32 [labels], of an image, uint8 [height, width, 3]."""
        answer: NDArray[Any] = self._session.run(["probabilities"], {"pixels": pixels[None].numpy()})[0][0]
        return answer
