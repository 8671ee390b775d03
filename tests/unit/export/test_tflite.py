"""The models for TensorFlow Lite take resized pixels as they are, and answer as the classifier does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import small_classifier

from job.data import decode
from job.export import saved_model, tflite

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A loaded SavedModel of 32 pixels."""
    folder = tmp_path_factory.mktemp("export") / "model"
    saved_model.save(small_classifier(), folder, max_pixels=10**6)
    return tf.saved_model.load(str(folder / "saved_model"))


def pictures(count: int, *size: int, top: int = 256) -> NDArray[Any]:
    """Return pictures of noise, each with a brightness of its own, uint8 [count, *size, 3]."""
    random = np.random.default_rng(0)
    return (random.integers(0, top, (count, *size, 3)) * random.uniform(0.2, 1, (count, 1, 1, 1))).astype(np.uint8)


def test_float32(served: Any) -> None:
    """The float32 model has the documented input and output, and the classifier's probabilities."""
    content = tflite.convert(served, [])
    model, images = tflite.Model(content), pictures(4, 50, 40)

    [entry], [leaving] = model._interpreter.get_input_details(), model._interpreter.get_output_details()
    assert ([1, 32, 32, 3], np.uint8) == (entry["shape"].tolist(), entry["dtype"])
    assert ([1, 2], np.float32) == (leaving["shape"].tolist(), leaving["dtype"])
    assert {"serving_default": {"inputs": ["pixels"], "outputs": ["probabilities"]}} == (
        model._interpreter.get_signature_list()
    )
    expected = served.classify(tf.cast(decode.resize(images, 32), tf.float32)).numpy()
    np.testing.assert_allclose(expected, [model.probabilities(tf.constant(image)) for image in images], atol=1e-5)


def test_int8(served: Any) -> None:
    """The int8 model takes pixels as they are, also if no picture for calibration has white, and computes in int8."""
    content = tflite.convert_int8(served, list(pictures(8, 32, 32, top=200)))
    model, images = tflite.Model(content), pictures(4, 32, 32)

    [entry], [leaving] = model._interpreter.get_input_details(), model._interpreter.get_output_details()
    assert ([1, 32, 32, 3], np.uint8, (1.0, 0)) == (entry["shape"].tolist(), entry["dtype"], entry["quantization"])
    assert np.float32 == leaving["dtype"]
    weights = [details for details in model._interpreter.get_tensor_details() if len(details["shape"]) == 4]
    assert {np.int8} == {details["dtype"] for details in weights} - {np.uint8}
    expected = served.classify(tf.cast(images, tf.float32)).numpy()
    np.testing.assert_allclose(expected, [model.probabilities(tf.constant(image)) for image in images], atol=0.05)
