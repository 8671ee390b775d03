"""Answers of a SavedModel for images that were read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image as Pictures

from job.data import decode
from job.data.image_files import Image
from job.errors import DataError
from job.export.predictor import Predictor

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


class Shade(tf.Module):
    """Answers how dark and how light an image is."""

    def __init__(self) -> None:
        super().__init__()
        self.serve_bytes = tf.function(self._serve, input_signature=[tf.TensorSpec((None,), tf.string, "image_bytes")])

    def _serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        light = (
            tf.reduce_mean(tf.cast(decode.decode_batch(image_bytes, 8, max_pixels=10**6), tf.float32), (1, 2, 3)) / 255
        )
        return {"probabilities": tf.stack([1 - light, light], 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model."""
    folder = tmp_path_factory.mktemp("run")
    model = Shade()
    tf.saved_model.save(model, str(folder / "model/saved_model"), signatures={"serve_bytes": model.serve_bytes})
    (folder / "model/labels.txt").write_text("dark\nlight\n", encoding="utf-8")
    return folder


def encoded(shade: int) -> bytes:
    """Return a gray image."""
    file = io.BytesIO()
    Pictures.new("RGB", (9, 7), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


CUT = encoded(10)[:60]


def answers(folder: Path, *batches: list[Image]) -> list[Any]:
    """Return the answers for batches."""
    return [answer for found in Predictor(folder).predict(batches) for answer in found]


@pytest.mark.parametrize("bad", [[], [0], [3], [1, 2], [0, 1, 2, 3, 4]])
def test_images_that_cannot_be_decoded(folder: Path, bad: list[int]) -> None:
    """They have their reason, and the others of their batch their probabilities, in the order of the images."""
    batch = [Image(str(n), CUT if n in bad else encoded(51 * n)) for n in range(5)]

    found = answers(folder, batch)

    assert [str(n) for n in range(5)] == [answer.uri for answer in found]
    assert ["corrupt" if n in bad else None for n in range(5)] == [answer.reason for answer in found]
    for n, answer in enumerate(found):
        if n not in bad:
            np.testing.assert_allclose(answer.probabilities, [1 - n / 5, n / 5], atol=1e-6)


def test_what_was_not_read(folder: Path) -> None:
    """Images that could not be read pass through with their reason, also a whole batch of them."""
    gone = Image("gone", None, "missing", "there is none")

    found = answers(folder, [gone], [Image("a", encoded(0)), gone])

    assert ["missing", None, "missing"] == [answer.reason for answer in found]
    assert ["there is none", "", "there is none"] == [answer.detail for answer in found]


def test_no_model(tmp_path: Path, folder: Path) -> None:
    """What cannot be loaded is exit code 3, and so are labels that do not fit the model."""
    with pytest.raises(DataError, match="cannot be loaded"):
        Predictor(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "model/saved_model").symlink_to(folder / "model/saved_model")
    with pytest.raises(DataError, match="2 probabilities and 3 labels"):
        Predictor(tmp_path)
