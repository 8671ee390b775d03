"""The exported model: every format returns the classifier's probabilities."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import small_classifier
from PIL import Image

from job.errors import UnavailableError
from job.export import saved_model

if TYPE_CHECKING:
    from pathlib import Path


def test_every_form_answers_the_same(tmp_path: Path) -> None:
    """model.keras and both signatures give the classifier's own probabilities, with the labels in their order."""
    classifier, folder = small_classifier(), tmp_path / "model"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    encoded = []
    for image in pixels:
        Image.fromarray(image).save(file := io.BytesIO(), "PNG")
        encoded.append(file.getvalue())

    saved_model.save(classifier, folder)

    second = classifier.model(pixels).numpy()
    expected = np.concatenate([1 - second, second], axis=1)
    signatures = tf.saved_model.load(str(folder / "saved_model")).signatures
    for answer in (
        signatures["serving_default"](pixels=tf.constant(pixels)),
        signatures["serve_bytes"](image_bytes=tf.constant(encoded)),
    ):
        np.testing.assert_allclose(expected, answer["probabilities"], atol=1e-5)
        assert [[b"a", b"b"]] * 3 == answer["labels"].numpy().tolist()
    np.testing.assert_allclose(second, keras.models.load_model(folder / "model.keras")(pixels), atol=1e-6)
    assert "a\nb\n" == (folder / "labels.txt").read_text()


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made ends the run with exit code 20, naming it."""
    (tmp_path / "file").touch()

    with pytest.raises(UnavailableError, match=f"cannot be written to {tmp_path}/file/model") as caught:
        saved_model.save(small_classifier(), tmp_path / "file" / "model")
    assert 20 == caught.value.exit_code
