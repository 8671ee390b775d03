"""The exported model, in the formats for its consumers.

- ``model.keras``: the standard Keras architecture. It loads without this package.
- ``saved_model/``: for TensorFlow Serving and ``tf.saved_model.load``. BatchNormalization is merged into the
  convolutions. ``serving_default`` takes pixels, uint8 [n, size, size, 3]; ``serve_bytes`` takes encoded images, string
  [n], and decodes them as training does. Both return ``probabilities``, float32 [n, labels], and ``labels``, string
  [n, labels].
- ``labels.txt``: one label per line, in the order of the probabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from job import errors
from job.data import decode
from job.model import folding

if TYPE_CHECKING:
    from pathlib import Path

    from job.model.classifier import Classifier


class ServedModel(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """The classifier for serving: a tf.Module with two signatures."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        base_model, labels, size = folding.merge(classifier.base_model), classifier.labels, classifier.image_size
        # note: saving tracks only the attributes of this module; tracking every layer of a Keras model takes seconds
        self._variables = [variable.value for variable in (*base_model.variables, *classifier.head_variables())]

        def serving_default(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            maps = base_model(classifier.rescaling(pixels), training=False)
            logits = classifier.head_logits(tf.reduce_mean(maps, axis=(1, 2)))
            names = tf.tile(tf.constant([list(labels)]), [tf.shape(pixels)[0], 1])
            return {"probabilities": classifier.probabilities(logits), "labels": names}

        pixels = tf.TensorSpec((None, size, size, 3), tf.uint8, "pixels")
        self.serving_default = tf.function(serving_default, input_signature=[pixels], autograph=False)

        def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            served: dict[str, tf.Tensor] = self.serving_default(decode.decode_batch(image_bytes, size))
            return served

        image_bytes = tf.TensorSpec((None,), tf.string, "image_bytes")
        self.serve_bytes = tf.function(serve_bytes, input_signature=[image_bytes], autograph=False)


def save(classifier: Classifier, folder: Path) -> None:
    """Write ``model.keras``, ``saved_model/`` and ``labels.txt`` into `folder`.

    Raises:
        errors.UnavailableError: the files cannot be written.
    """
    try:
        folder.mkdir(parents=True)
        classifier.model.save(folder / "model.keras")
        served = ServedModel(classifier)
        signatures = {"serving_default": served.serving_default, "serve_bytes": served.serve_bytes}
        tf.saved_model.save(served, str(folder / "saved_model"), signatures=signatures)
        (folder / "labels.txt").write_text("".join(f"{label}\n" for label in classifier.labels), encoding="utf-8")
    except (OSError, tf.errors.OpError) as error:
        raise errors.UnavailableError(
            f"the model cannot be written to {folder}: {error}",
            remedy="see whether the volume of cache.dir has room and is sound; the next start exports it again",
        ) from error
