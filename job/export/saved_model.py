"""The published model, in the formats others load, and the proof that it answers as the run's own did.

- ``model.keras``: the standard Keras architecture. It loads without this package.
- ``saved_model/``: for TensorFlow Serving and ``tf.saved_model.load``. BatchNormalization is merged into the
  convolutions. ``serving_default`` takes pixels, uint8 [n, size, size, 3]; ``serve_bytes`` takes encoded images, string
  [n], and decodes them as the run did. Both return ``probabilities``, float32 [n, labels], and ``labels``, string
  [n, labels].
- ``labels.txt``: a label a line, in the order of the probabilities.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import tensorflow as tf

from job import errors
from job.config import environment
from job.data import decode
from job.data.dataset import RANGE
from job.model import folding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from job.model.classifier import Classifier

TOLERANCE = 1e-3
"""How far a probability of the exported model, computed on the CPU, may differ from the run's own: both are float32."""


class ServedModel(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """The classifier as it is served: a tf.Module with two signatures."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        base_model, labels, size = folding.merge(classifier.base_model), classifier.labels, classifier.image_size
        # note: these alone are looked at when it is saved; it takes seconds to go through all layers of a Keras model
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
        errors.UnavailableError: they cannot be written.
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


class Scorer:
    """A fresh process on the CPU that will score images with an exported model.

    It takes seconds to import TensorFlow: start it before the model is saved. Use it as a context manager.
    """

    def __init__(self) -> None:
        # note: no GPU for the child, which could not have the memory that this process holds
        variables = environment.for_child(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="2")
        command = [sys.executable, "-m", "job.export.scorer", str(RANGE)]
        self._errors = TemporaryFile()  # noqa: SIM115 (closed with the context)
        self._child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # of what it was not given any more
            self._child.stdin.close()
        self._child.stdout.close()
        self._errors.close()

    def probabilities(self, saved_model: Path, encoded: Iterable[bytes]) -> NDArray[Any]:
        """Return the model's answers for encoded images: float32 [n, labels]. It can be asked once.

        Raises:
            errors.InvariantError: the model cannot be loaded and run.
        """
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then it has died: its exit code tells
            self._child.stdin.write(json.dumps(str(saved_model)).encode() + b"\n")
            for data in encoded:
                self._child.stdin.write(len(data).to_bytes(4, "little") + data)
        answers, _ = self._child.communicate()
        if self._child.returncode:
            self._errors.seek(0)
            raise errors.InvariantError(
                f"the exported model cannot be loaded and run in a fresh process (exit {self._child.returncode}): "
                f"{self._errors.read().decode(errors='replace').strip()[-2000:]}",
                remedy=errors.REPORT,
            )
        return np.asarray(np.load(io.BytesIO(answers), allow_pickle=False))


def verify(scorer: Scorer, folder: Path, encoded: Iterable[bytes], probabilities: NDArray[Any]) -> dict[str, Any]:
    """Compare the exported SavedModel's answers for encoded images with the run's own.

    Args:
        scorer: scores them.
        folder: what `save` wrote to.
        encoded: the images' bytes as they were stored.
        probabilities: the run's own, float32 [n, labels].

    Returns:
        What metrics.json says of the comparison.

    Raises:
        errors.InvariantError: the exported model cannot be loaded, or answers differently.
    """
    served = scorer.probabilities(folder / "saved_model", encoded)
    difference = float(np.abs(served - probabilities).max())
    # Two labels whose probabilities lie within the tolerance may change places.
    ranked = np.sort(probabilities, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > TOLERANCE
    flipped = int(np.count_nonzero(clear & (served.argmax(axis=1) != probabilities.argmax(axis=1))))
    if difference > TOLERANCE or flipped or not np.isfinite(served).all():
        raise errors.InvariantError(
            f"the exported model answers differently: probabilities differ by up to {difference:g}, expected at most "
            f"{TOLERANCE:g}; {flipped} of {len(probabilities)} images get another label",
            remedy=errors.REPORT,
        )
    return {"images": len(probabilities), "max_difference": difference, "tolerance": TOLERANCE}
