"""The training and validation examples of a stage."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from job.training import imbalance

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.config.settings import ClassWeight, StageName
    from job.data.cache_files import Rows
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.runtime.device import Precision


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The training and validation examples of a stage, by rows of the manifest.

    Attributes:
        inputs: rows -> [n, ...], the inputs of `logits` and `training_logits`.
        spec: shape (first dimension None) and dtype of the inputs.
        logits: inputs -> logits, in float32: the model that is evaluated and published.
        training_logits: inputs and the dropout seed -> logits, in the training precision; differentiable with respect
            to the stage's variables.
        precision: of `training_logits`.
        labels: int32 [images].
        seed: of the order of the images, and of dropout.
        train: rows of the training split.
        validation: rows of the validation split.
        class_weights: of an image's loss by its label, float32 [labels]; None: all count the same.
    """

    inputs: Callable[[NDArray[Any]], NDArray[Any]]
    spec: tf.TensorSpec
    logits: Callable[[tf.Tensor], tf.Tensor]
    training_logits: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    precision: Precision
    labels: NDArray[Any]
    seed: int
    train: NDArray[Any]
    validation: NDArray[Any]
    class_weights: NDArray[Any] | None = None

    @functools.cached_property
    def predict(self) -> Callable[[NDArray[Any]], tf.Tensor]:
        """`logits`, compiled."""

        def forward(inputs: tf.Tensor) -> tf.Tensor:
            return self.logits(inputs)

        compiled: Callable[..., tf.Tensor] = tf.function(forward, input_signature=[self.spec], autograph=False)
        return compiled


def create_examples(
    classifier: Classifier,
    images: Dataset,
    features: Rows,
    rows_of: dict[str, NDArray[Any]],
    *,
    seed: int,
    class_weight: ClassWeight = "none",
) -> dict[StageName, Examples]:
    """Return the examples of each stage: stage 1 trains on features, stage 2 on pixels.

    Args:
        classifier: folded.
        images: the data, after the pass over them.
        features: float32 [images, feature_size], all rows written.
        rows_of: the split's name -> rows, int [n].
        seed: of the order of the images, and of dropout.
        class_weight: the setting `train.class_weight`.
    """
    counts = np.bincount(images.manifest.label[rows_of["train"]], minlength=len(classifier.labels))
    size = classifier.image_size
    shared: dict[str, Any] = {
        "seed": seed,
        "labels": images.manifest.label,
        "train": rows_of["train"],
        "validation": rows_of["validation"],
        "class_weights": imbalance.class_weights(class_weight, counts),
    }
    return {
        "feature_extraction": Examples(
            inputs=features.__getitem__,
            spec=tf.TensorSpec((None, classifier.feature_size), tf.float32),
            logits=classifier.head_logits,
            training_logits=classifier.head_logits,
            precision="float32",
            **shared,
        ),
        "fine_tuning": Examples(
            inputs=images.pixels,
            spec=tf.TensorSpec((None, size, size, 3), tf.uint8),
            logits=classifier.logits,
            training_logits=classifier.training_logits,
            precision=classifier.training_precision,
            **shared,
        ),
    }
