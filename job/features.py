"""Features: what the frozen base model makes of each image.

In stage 1 the base model is frozen and its BatchNormalization in inference mode, so that its output for an image never
changes: one forward pass over the data serves any number of epochs, with the same mathematics as the plain recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.cache import Rows
    from job.model import Classifier

Array = np.ndarray[Any, Any]


def extract(classifier: Classifier, batches: Iterator[tuple[slice, Array]], into: Rows) -> None:
    """Compute the features of every batch of pixels.

    Args:
        classifier: with its pretrained weights, folded.
        batches: the rows, and uint8 pixels [batch, size, size, 3], every batch of the same length; where there are
            fewer rows than that, what follows them is ignored.
        into: float32 [images, feature_size]: each row is written.
    """
    # note: one shape for all batches, so that the bits of a feature do not depend on how many images there are
    size = classifier.image_size
    forward = None
    for rows, pixels in batches:
        if forward is None:
            signature = tf.TensorSpec((len(pixels), size, size, 3), tf.uint8)
            forward = tf.function(classifier.features, input_signature=[signature], autograph=False)
        into[rows] = forward(pixels).numpy()[: rows.stop - rows.start]
