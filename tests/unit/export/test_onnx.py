"""The ONNX model takes pixels of any size, resizes them as training does, and answers as the classifier does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import small_classifier

from job.data import decode
from job.export import onnx, saved_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZES = [(32, 32), (64, 64), (31, 17), (200, 301), (1, 1), (5, 112), (3, 900), (97, 2)]


def noise(height: int, width: int) -> NDArray[Any]:
    """Return an image of noise."""
    return np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [32, 224])
def test_resizing_is_that_of_training(height: int, width: int, size: int) -> None:
    """The pixels are those that the model was trained on, to the bit."""
    image = noise(height, width)[None]

    np.testing.assert_array_equal(decode.resize(image, size), onnx.resize(tf.constant(image), size))


@pytest.mark.slow
def test_model(tmp_path: Path) -> None:
    """The model has the documented input and output, and the classifier's probabilities for any size."""
    saved_model.save(small_classifier(), tmp_path / "model", max_pixels=10**6)
    served = tf.saved_model.load(str(tmp_path / "model/saved_model"))
    model = onnx.Model(onnx.convert(served, []))

    [entry], [leaving] = model._session.get_inputs(), model._session.get_outputs()
    assert ("pixels", ["images", "height", "width", 3], "tensor(uint8)") == (entry.name, entry.shape, entry.type)
    assert ("probabilities", ["images", 2], "tensor(float)") == (leaving.name, leaving.shape, leaving.type)
    for size in SIZES:
        image = noise(*size)
        expected = served.serving_default(tf.constant(image[None]))["probabilities"][0]
        np.testing.assert_allclose(expected, model.probabilities(tf.constant(image)), atol=1e-5)
    [batch] = model._session.run(None, {"pixels": np.stack([noise(40, 30)] * 3)})
    assert (3, 2) == batch.shape
