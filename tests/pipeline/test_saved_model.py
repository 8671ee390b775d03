"""The exported model: every format returns the classifier's probabilities, for images of any size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import keras
import light_runs
import numpy as np
import pytest
import tensorflow as tf
from classifiers import varied_classifier
from drawn_images import MAX_PIXELS
from PIL import Image

from job.config.settings import ModelSettings
from job.data import decode
from job.export import saved_model

if TYPE_CHECKING:
    from job.model.classifier import Classifier


class Exported(NamedTuple):
    """An exported classifier.

    Attributes:
        classifier: with dropout, which must not act.
        saved_model: as loaded.
        keras_model: as loaded.
    """

    classifier: Classifier
    saved_model: tf.Module
    keras_model: keras.Model


@pytest.fixture(scope="module", params=[("a", "b"), ("a", "b", "ü")], ids=["two labels", "three labels"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An exported MobileNetV2 of 32 pixels and few blocks."""
    folder = tmp_path_factory.mktemp("export") / "model"
    settings = ModelSettings(alpha=0.35, image_size=32, weights="none", dropout=0.5)
    with light_runs.here(light_runs.SHALLOW):
        classifier = varied_classifier(settings, request.param)
    saved_model.save(classifier, folder, max_pixels=MAX_PIXELS)
    return Exported(
        classifier,
        tf.saved_model.load(str(folder / "saved_model")),
        keras.models.load_model(folder / "model.keras"),
    )


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    """Return images of noise, uint8 [height, width, 3], each with a brightness of its own."""
    random = np.random.default_rng(0)
    return [
        (random.integers(0, 256, (height, width, 3)) * random.uniform(0.3, 1)).astype(np.uint8)
        for height, width in sizes
    ]


def encode(image: np.ndarray, image_format: str = "PNG") -> bytes:
    """Return an image's bytes."""
    Image.fromarray(image).save(file := io.BytesIO(), image_format)
    return file.getvalue()


def columns(probabilities: np.ndarray) -> np.ndarray:
    """Return one probability per label, of what model.keras answers: the snippet of docs/serving.md."""
    if probabilities.shape[1] == 1:
        probabilities = np.concatenate([1 - probabilities, probabilities], axis=1)
    return probabilities


SIZES = [(32, 32), (64, 64), (31, 17), (200, 301), (1, 1), (16, 16)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_form_answers_alike(exported: Exported, height: int, width: int) -> None:
    """Both signatures and model.keras give the run's own probabilities for pixels of any size, labels in order."""
    classifier, (image,) = exported.classifier, noise((height, width))
    resized = tf.constant(decode.resize(image[None], 32))
    expected = classifier.probabilities(classifier.logits(resized)).numpy()

    by_pixels = exported.saved_model.signatures["serving_default"](pixels=tf.constant(image[None]))
    by_bytes = exported.saved_model.signatures["serve_bytes"](image_bytes=tf.constant([encode(image)]))

    for answer in (by_pixels, by_bytes):
        np.testing.assert_allclose(expected, answer["probabilities"], atol=1e-4)
        assert [[label.encode() for label in classifier.labels]] == answer["labels"].numpy().tolist()
    np.testing.assert_allclose(expected, columns(np.asarray(exported.keras_model(image[None]))), atol=1e-4)
    np.testing.assert_allclose(expected, columns(exported.keras_model.predict(image[None], verbose=0)), atol=1e-4)


def test_answers_depend_on_the_image(exported: Exported) -> None:
    """Answers differ from image to image, so that the comparisons of this file are not trivial."""
    images = [image[None] for image in noise(*SIZES)]
    answers = np.concatenate([exported.keras_model(image) for image in images])

    assert np.ptp(answers[:, -1]) > 0.01


def test_a_mixed_batch_is_answered_image_by_image(exported: Exported) -> None:
    """Images of several formats and sizes in one call of serve_bytes are answered as one by one."""
    encoded = [
        encode(image, image_format)
        for image, image_format in zip(noise(*SIZES), ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PNG"), strict=True)
    ]
    serve_bytes = exported.saved_model.signatures["serve_bytes"]

    together = serve_bytes(image_bytes=tf.constant(encoded))["probabilities"]

    one_by_one = [serve_bytes(image_bytes=tf.constant([data]))["probabilities"][0] for data in encoded]
    np.testing.assert_allclose(one_by_one, together, atol=1e-5)


def test_an_empty_batch_has_an_empty_answer(exported: Exported) -> None:
    """No images are no error, for either signature."""
    signatures, labels = exported.saved_model.signatures, len(exported.classifier.labels)
    for answer in (
        signatures["serve_bytes"](image_bytes=tf.constant([], tf.string)),
        signatures["serving_default"](pixels=tf.zeros((0, 40, 30, 3), tf.uint8)),
    ):
        assert [(0, labels), (0, labels)] == [answer["probabilities"].shape, answer["labels"].shape]


@pytest.mark.parametrize("bad", [b"", b"<html>", encode(noise((90, 90))[0], "JPEG")[:900]])
def test_a_bad_image_is_named_by_its_index(exported: Exported, bad: bytes) -> None:
    """An image of a batch that cannot be decoded is an error that names its position and what was expected."""
    good = encode(noise((20, 20))[0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image 2 of the batch .* expected a JPEG, PNG, GIF"):
        exported.saved_model.signatures["serve_bytes"](image_bytes=tf.constant([good, good, bad, good, bad]))


def test_floats_are_refused(exported: Exported) -> None:
    """Pixels that are floats, as of images scaled to 0..1, are refused, naming both types."""
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected to be a uint8 tensor but is a float tensor"):
        exported.saved_model.signatures["serving_default"](pixels=tf.zeros((1, 32, 32, 3), tf.float32))


def test_decode_returns_upright_pixels(exported: Exported) -> None:
    """The SavedModel's function `decode` gives one image's pixels at their own size."""
    [image] = noise((20, 30))

    np.testing.assert_array_equal(image, exported.saved_model.decode(encode(image)))
