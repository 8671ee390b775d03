"""The exported model, in the formats for its consumers.

- ``model.keras``: the Keras model; see `job.export.keras_model`.
- ``saved_model/``: for TensorFlow Serving and ``tf.saved_model.load``. BatchNormalization is merged into the
  convolutions. ``serving_default`` takes pixels of any size, uint8 [n, height, width, 3], and resizes them as training
  does; ``serve_bytes`` takes encoded images, string [n], and decodes them as training does. Both return
  ``probabilities``, float32 [n, labels], and ``labels``, string [n, labels]. Two functions are no signatures:
  ``decode`` returns the upright pixels of one encoded image, uint8 [height, width, 3]; ``classify`` returns the
  probabilities of resized pixels, float32 [n, size, size, 3], and is what `job.export.conversion` converts. An encoded
  image of more pixels than training decodes is refused.
  ``assets.extra/`` has the requests with which TensorFlow Serving warms up; see `job.export.warmup`.
- ``labels.txt``: one label per line, in the order of the probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from job import errors
from job.data import decode
from job.export import keras_model, warmup
from job.model import folding

if TYPE_CHECKING:
    from pathlib import Path

    from job.model.classifier import Classifier


class ServedModel(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """The classifier for serving: a tf.Module with two signatures."""

    def __init__(self, classifier: Classifier, *, max_pixels: int) -> None:
        super().__init__()
        base_model, labels, size = folding.merge(classifier.base_model), classifier.labels, classifier.image_size
        # note: saving tracks only the attributes of this module; tracking every layer of a Keras model takes seconds
        self._variables = [variable.value for variable in (*base_model.variables, *classifier.head_variables())]

        def classify(resized: tf.Tensor) -> tf.Tensor:
            maps = base_model(classifier.rescaling(resized), training=False)
            return classifier.probabilities(classifier.head_logits(tf.reduce_mean(maps, axis=(1, 2))))

        def answers(resized: tf.Tensor) -> dict[str, tf.Tensor]:
            images = tf.shape(resized)[0]
            # note: with oneDNN, TensorFlow fails on a depthwise convolution of no images
            padded = tf.pad(resized, [[0, tf.cast(images == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
            probabilities = self.classify(tf.cast(padded, tf.float32))[:images]
            return {"probabilities": probabilities, "labels": tf.tile(tf.constant([list(labels)]), [images, 1])}

        def serving_default(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            return answers(decode.resize(pixels, size))

        def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            return answers(decode.decode_batch(image_bytes, size, max_pixels=max_pixels))

        def decode_one(image: tf.Tensor) -> tf.Tensor:
            return decode.decode(image, max_pixels=max_pixels)

        resized = tf.TensorSpec((None, size, size, 3), tf.float32, "pixels")
        pixels = tf.TensorSpec((None, None, None, 3), tf.uint8, "pixels")
        image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
        self.classify = tf.function(classify, input_signature=[resized], autograph=False)
        self.serving_default = tf.function(serving_default, input_signature=[pixels], autograph=False)
        self.serve_bytes = tf.function(serve_bytes, input_signature=[image_bytes], autograph=False)
        self.decode = tf.function(decode_one, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)


def save(classifier: Classifier, folder: Path, *, max_pixels: int) -> None:
    """Write ``model.keras``, ``saved_model/`` and ``labels.txt`` into `folder`.

    Args:
        classifier: the trained model.
        folder: is created.
        max_pixels: images of more pixels are refused, not decoded, as in training.

    Raises:
        errors.UnavailableError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        keras_model.save(classifier, folder / "model.keras")
        served = ServedModel(classifier, max_pixels=max_pixels)
        signatures = {"serving_default": served.serving_default, "serve_bytes": served.serve_bytes}
        tf.saved_model.save(served, str(folder / "saved_model"), signatures=signatures)
        warmup.write(folder / "saved_model", classifier.image_size)
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in classifier.labels), encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:
        raise errors.UnavailableError(
            f"the model cannot be written to {folder}: {error}",
            remedy="see whether the volume of cache.dir has room and is sound; the next start exports it again",
        ) from error
