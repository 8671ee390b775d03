"""Grad-CAM against its definition: the gradient with respect to the maps, by a tape through all layers behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import small_classifier, varied_classifier

from job.config.settings import ModelSettings
from job.evaluation import saliency

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.model.classifier import Classifier

PIXELS = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def defined(classifier: Classifier, pixels: NDArray[Any]) -> NDArray[Any]:
    """Return the maps as the paper defines them, scaled to at most 1."""
    maps = classifier.maps(tf.constant(pixels))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = classifier.head_logits(tf.reduce_mean(maps, axis=(1, 2)))
        two = tf.concat([-logits, logits], axis=1) if len(classifier.labels) == 2 else logits
        predicted = tf.reduce_max(two, axis=1)
    weights = tf.reduce_mean(tape.gradient(predicted, maps), axis=(1, 2), keepdims=True)
    evidence = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1)).numpy()
    largest = evidence.max(axis=(1, 2), keepdims=True)
    return np.divide(evidence, largest, out=np.zeros_like(evidence), where=largest > 0)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c")])
def test_heatmaps_are_grad_cam(labels: tuple[str, ...]) -> None:
    """The heatmaps of two labels and of more are those of the paper, for any batch size."""
    classifier = small_classifier()
    if len(labels) > 2:
        settings = ModelSettings(weights="none", alpha=0.35, image_size=64)
        classifier, pixels = varied_classifier(settings, labels), np.tile(PIXELS, (1, 2, 2, 1))
    else:
        pixels = PIXELS
    expected = defined(classifier, pixels)

    seen = saliency.heatmaps(classifier, pixels)

    assert seen.max() == 1
    np.testing.assert_allclose(expected, seen, atol=1e-4)
    np.testing.assert_allclose(seen, saliency.heatmaps(classifier, pixels, 2), atol=1e-5)


def test_no_evidence() -> None:
    """Where nothing speaks for the label, the map is zero everywhere, not NaN."""
    classifier = small_classifier()
    classifier.fc1.kernel.assign(np.zeros(classifier.fc1.kernel.shape))

    assert not saliency.heatmaps(classifier, PIXELS).any()


def test_maps_are_those_of_the_features() -> None:
    """The features are the means of the maps, bit for bit."""
    classifier = small_classifier()
    maps = classifier.maps(tf.constant(PIXELS))

    assert np.array_equal(classifier.features(tf.constant(PIXELS)), classifier.pooled(maps))
