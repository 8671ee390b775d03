"""Answers of a published SavedModel for encoded images: by ``serve_bytes``, with the run's own decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from job import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from job.data.image_files import Image
    from job.data.quarantine import Reason


class Answer(NamedTuple):
    """What the model answers for an image.

    Attributes:
        uri: of the image.
        probabilities: float32 [labels]; None if the image cannot be used.
        reason: why not, one of quarantine.REASONS; None if it can.
        detail: a sentence, for people.
    """

    uri: str
    probabilities: NDArray[Any] | None
    reason: Reason | None = None
    detail: str = ""


class Predictor:
    """A published model.

    Args:
        folder: has ``model/labels.txt`` and ``model/saved_model/``.

    Attributes:
        labels: in the order of the probabilities.

    Raises:
        errors.DataError: the model cannot be loaded, or is not one of this program.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.labels = (folder / "model/labels.txt").read_text(encoding="utf-8").splitlines()
            self._model = tf.saved_model.load(str(folder / "model/saved_model"))  # its functions need it
            self._serve_bytes = self._model.signatures["serve_bytes"]
            columns = self._serve_bytes.structured_outputs["probabilities"].shape[-1]
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:300]
            raise errors.DataError(
                f"the run's model cannot be loaded with TensorFlow {tf.__version__}: {reason}",
                remedy="load it with the version of TensorFlow that provenance.json names",
            ) from error
        if columns not in (None, len(self.labels)):
            raise errors.DataError(
                f"the run's model has {columns} probabilities and {len(self.labels)} labels",
                remedy="give a run that finetune run has published",
            )

    def predict(self, batches: Iterable[Sequence[Image]]) -> Iterator[list[Answer]]:
        """Yield the answers for batches of images, in order.

        Args:
            batches: images as they were read; those that cannot be used are passed on.
        """
        for images in batches:
            encoded = [image.data for image in images if image.data is not None]
            found = iter(self._score(encoded))
            yield [
                Answer(image.uri, None, image.reason, image.detail)
                if image.data is None
                else _answer(image, next(found))
                for image in images
            ]

    def _score(self, encoded: list[bytes]) -> list[NDArray[Any] | None]:
        """Return the probabilities of each image; None for one that cannot be decoded."""
        if not encoded:
            return []
        try:
            return list(self._serve_bytes(image_bytes=tf.constant(encoded))["probabilities"].numpy())
        except tf.errors.InvalidArgumentError:
            if len(encoded) == 1:
                return [None]
        middle = len(encoded) // 2  # one bad image fails a batch: look for it in its halves
        return self._score(encoded[:middle]) + self._score(encoded[middle:])


def _answer(image: Image, probabilities: NDArray[Any] | None) -> Answer:
    if probabilities is None:
        return Answer(image.uri, None, "corrupt", "an image that cannot be decoded: cut off or damaged")
    return Answer(image.uri, probabilities)
