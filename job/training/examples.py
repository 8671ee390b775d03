"""What a stage learns from and is measured with."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.config.settings import StageName
    from job.data.cache_files import Rows
    from job.data.dataset import Dataset
    from job.model.classifier import Classifier
    from job.runtime.device import Precision


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a stage learns from and is measured with, by rows of the manifest.

    Attributes:
        inputs: rows -> [n, ...], what `logits` and `training_logits` take.
        spec: their shape, its first dimension None, and dtype.
        logits: inputs -> logits, in float32: what is measured and published.
        training_logits: inputs and the dropout seed -> logits, in the training precision; differentiable in the stage's
            variables.
        precision: what `training_logits` computes in.
        labels: int32 [images].
        seed: of the order in which they are read, and of dropout.
        train: the rows to learn from.
        validation: the rows to measure with.
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

    @functools.cached_property
    def predict(self) -> Callable[[NDArray[Any]], tf.Tensor]:
        """`logits`, compiled."""

        def forward(inputs: tf.Tensor) -> tf.Tensor:
            return self.logits(inputs)

        compiled: Callable[..., tf.Tensor] = tf.function(forward, input_signature=[self.spec], autograph=False)
        return compiled


def create_examples(
    classifier: Classifier, images: Dataset, features: Rows, rows_of: dict[str, NDArray[Any]], *, seed: int
) -> dict[StageName, Examples]:
    """Return what each stage learns from: stage 1 from features, stage 2 from pixels.

    Args:
        classifier: folded.
        images: the data, after the pass.
        features: float32 [images, feature_size], all rows written.
        rows_of: the split's name -> rows, int [n].
        seed: of the order in which images are read, and of dropout.
    """
    size = classifier.image_size
    shared: dict[str, Any] = {
        "seed": seed,
        "labels": images.manifest.label,
        "train": rows_of["train"],
        "validation": rows_of["validation"],
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
