"""``model.tflite`` and ``model_int8.tflite``: the classifier for TensorFlow Lite (LiteRT), on phones and boards.

Both take resized pixels, ``pixels``: uint8 [1, size, size, 3], 0 to 255, and return ``probabilities``: float32
[1, labels]. The size is fixed, since the accelerators of phones and boards need static shapes: the caller resizes.

- float32: weights and computation.
- int8: weights, activations and computation, with one scale for each output channel of a convolution's weights
  (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.data import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


def convert(served: Any, calibration: Sequence[NDArray[Any]]) -> bytes:  # noqa: ARG001  # as convert_int8
    """Return the float32 model.

    Args:
        served: the loaded SavedModel.
        calibration: not used.
    """

    def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": served.classify(tf.cast(pixels, tf.float32))}

    return _run(_converter(served, answer, tf.uint8))


def convert_int8(served: Any, calibration: Sequence[NDArray[Any]]) -> bytes:
    """Return the model that computes in int8.

    Args:
        served: the loaded SavedModel.
        calibration: pictures from whose activations the scales are computed, uint8 [size, size, 3].

    Raises:
        ValueError: pixels would be quantized.
    """

    def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": served.classify(pixels)}

    def samples() -> Iterator[list[NDArray[Any]]]:
        for number, picture in enumerate(calibration):
            pixels = picture[None].astype(np.float32)
            if number == 0:  # the whole range occurs, so that pixels are taken as they are: scale 1, zero point 0
                pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
            yield [pixels]

    converter = _converter(served, answer, tf.float32)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    model = _run(converter)
    quantization = tf.lite.Interpreter(model_content=model).get_input_details()[0]["quantization"]
    if quantization != (1.0, 0):
        raise ValueError(f"the input has scale and zero point {quantization}, expected (1.0, 0)")
    return model


class Model:
    """A converted model.

    Args:
        content: what `convert` or `convert_int8` returned.
    """

    def __init__(self, content: bytes) -> None:
        self._interpreter = tf.lite.Interpreter(model_content=content)
        self._run = self._interpreter.get_signature_runner()
        [details] = self._interpreter.get_input_details()
        self._size = int(details["shape"][1])

    def probabilities(self, pixels: tf.Tensor) -> NDArray[Any]:
        """Return the probabilities, float32 [labels], of an image, uint8 [height, width, 3]."""
        answer: NDArray[Any] = self._run(pixels=decode.resize(pixels[None], self._size).numpy())["probabilities"][0]
        return answer


def _converter(served: Any, answer: Any, dtype: tf.DType) -> Any:
    """Return the converter of a function of one picture, [1, size, size, 3]."""
    [concrete] = served.classify.concrete_functions
    [resized], _ = concrete.structured_input_signature
    pixels = tf.TensorSpec((1, *resized.shape[1:]), dtype, "pixels")
    function = tf.function(answer, input_signature=[pixels], autograph=False).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([function], served)


def _run(converter: Any) -> bytes:
    model: bytes = converter.convert()
    return model
