"""The requests with which TensorFlow Serving warms a model up, so that its first client need not wait for it.

TensorFlow Serving sends every record of ``assets.extra/tf_serving_warmup_requests`` to the model before it reports it
as available (https://www.tensorflow.org/tfx/serving/saved_model_warmup). There is one record for each signature, with a
drawn picture: nothing of the data is published here.

A record is a ``PredictionLog`` of tensorflow_serving/apis/prediction_log.proto. Its few fields are encoded here, since
the package with these messages, tensorflow-serving-api, requires a second TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from pathlib import Path

FILE = "assets.extra/tf_serving_warmup_requests"
"""Its name in the folder of the SavedModel."""

MODEL_NAME = "default"
"""The name that requests must have; TensorFlow Serving uses it for nothing else in a warm-up."""


def write(saved_model: Path, image_size: int) -> None:
    """Write the requests into the folder of a SavedModel.

    Args:
        saved_model: the folder.
        image_size: height and width of the picture.

    Raises:
        OSError, tf.errors.OpError: they cannot be written.
    """
    picture = draw(image_size)
    encoded = tf.io.encode_jpeg(picture)
    path = saved_model / FILE
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as records:
        records.write(prediction_log("serve_bytes", "image_bytes", encoded[None]))
        records.write(prediction_log("serving_default", "pixels", picture[None]))


def draw(size: int) -> tf.Tensor:
    """Return a picture of three gradients, uint8 [size, size, 3]."""
    ramp = tf.cast(tf.range(size) * 255 // max(size - 1, 1), tf.uint8)
    across, down = tf.meshgrid(ramp, ramp)
    return tf.stack([across, down, 255 - across], axis=2)


def prediction_log(signature: str, name: str, value: tf.Tensor) -> bytes:
    """Return a ``PredictionLog`` with a ``PredictRequest``.

    Args:
        signature: the signature's name.
        name: of its input.
        value: of that input.
    """
    # The numbers are those of the fields in the .proto files that the comments name.
    model_spec = _field(1, MODEL_NAME.encode()) + _field(3, signature.encode())  # model.proto: name, signature_name
    tensor: bytes = tf.make_tensor_proto(value).SerializeToString()
    entry = _field(1, name.encode()) + _field(2, tensor)  # of a map: key, value
    request = _field(1, model_spec) + _field(2, entry)  # predict.proto: model_spec, inputs
    predict_log = _field(1, request)  # prediction_log.proto: PredictLog.request
    return _field(6, predict_log)  # prediction_log.proto: PredictionLog.predict_log


def _field(number: int, data: bytes) -> bytes:
    """Return a field of bytes, text or a message (https://protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
