"""Grad-CAM: which parts of an image speak for the label that the model predicts.

Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391: the base model's last maps, weighted by the gradient of the
label's logit. The features are the mean of each map, so that the gradient is the same at every position, and the
backward pass through the head suffices: it costs little more than the forward pass.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.data.dataset import RANGE
from job.runtime import memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.model.classifier import Classifier


def heatmaps(classifier: Classifier, pixels: NDArray[Any], batch_size: int = RANGE) -> NDArray[Any]:
    """Return what speaks for the predicted label at each position, float32 [n, height, width], 0 to 1.

    The strongest position of an image is 1. Where nothing speaks for its label, the map is all zeros.

    Args:
        classifier: with the weights to explain.
        pixels: uint8 [n, size, size, 3], at least one image.
        batch_size: images computed at once; halved until they fit into the device's memory.

    Raises:
        errors.DeviceMemoryError: a batch of one image does not fit.
    """
    shape = (None, *pixels.shape[1:])
    # note: compiled, it takes 1.06 times as long as the forward pass alone, op by op twice as long
    explain = tf.function(
        functools.partial(gradient_maps, classifier), input_signature=[tf.TensorSpec(shape, tf.uint8)], autograph=False
    )

    def compute(images: int) -> NDArray[Any]:
        return np.concatenate([explain(pixels[n : n + images]).numpy() for n in range(0, len(pixels), images)])

    return memory.halve_until_it_fits(compute, batch_size, work="the report's heatmaps", halved=int)


def gradient_maps(classifier: Classifier, pixels: tf.Tensor) -> tf.Tensor:
    """Return the maps of `heatmaps`, float32 [n, height, width], of uint8 pixels [n, size, size, 3]."""
    maps = classifier.maps(pixels)
    features = classifier.pooled(maps)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logits = classifier.head_logits(features)
        # Two labels have one logit; a negative one speaks for the first label.
        predicted = tf.abs(logits[:, 0]) if len(classifier.labels) == 2 else tf.reduce_max(logits, axis=1)
    weights = tape.gradient(predicted, features)
    evidence = tf.nn.relu(tf.einsum("nhwc,nc->nhw", maps, weights))
    return tf.math.divide_no_nan(evidence, tf.reduce_max(evidence, axis=(1, 2), keepdims=True))
