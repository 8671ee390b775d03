"""The training step of several replicas, in three calls.

1. Each replica computes the gradients of its part of the batch. There is no collective operation in it, so that a
   replica can run out of memory while the others do not wait for it.
2. One vector is summed over the processes: loss, correct predictions, whether a gradient is not finite, a signal
   received, out of memory. All of them decide by it alike.
3. The gradients are summed over all replicas, and each updates its copy of the variables.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from job.training import optimizers
from job.training.step import compile_gradients, gradient_function
from job.training.strategy import summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras
    from numpy.typing import NDArray

    from job.model.classifier import Classifier
    from job.training.examples import BatchPart, Examples


class Gradients(NamedTuple):
    """What each replica of this process has computed.

    Attributes:
        vectors: the scaled gradients of all variables as one vector, float32 [parameters], of each replica.
        sums: float64 [replicas, 3]: the summed loss, the correct predictions, and whether a gradient is not finite.
    """

    vectors: list[tf.Tensor]
    sums: NDArray[np.float64]


class ReplicatedStep:
    """A compiled training step of several replicas. It trains the variables that are trainable now.

    Args:
        classifier: created in the replicas' scope.
        examples: define the step's inputs, their logits and the replicas.
        optimizer: created and built in the replicas' scope.
        micro_batch: images whose gradients a replica computes at once; None: its part of the batch.
        label_smoothing: of the loss.
    """

    def __init__(
        self,
        classifier: Classifier,
        examples: Examples,
        optimizer: keras.optimizers.Optimizer,
        micro_batch: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        assert examples.replicas is not None
        self.replicas = examples.replicas
        self._examples = examples
        self._optimizer = optimizer
        self._updater = optimizers.without_all_reduce(optimizer)
        self._micro_batch = micro_batch
        self._variables = classifier.model.trainable_variables
        self._compute = gradient_function(classifier, examples, optimizer, label_smoothing, is_weighted=True)
        if classifier.xla:
            self._compute = compile_gradients(self._compute, classifier, examples, is_weighted=True)
        vector, number = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.int32)
        self._compute_gradients = self.replicas.compile(
            self._gradients_of_replica,
            [examples.step_spec, vector, tf.TensorSpec((None,), tf.float32), tf.TensorSpec((2,), tf.int32), number],
        )
        size = sum(math.prod(variable.shape) for variable in self._variables)
        self._update = self.replicas.compile(self._update_replica, [tf.TensorSpec((size,), tf.float32)])

    def __call__(
        self, parts: Sequence[BatchPart], labels: NDArray[Any], dropout_seed: NDArray[Any]
    ) -> tuple[float, int]:
        """Take a step; return the summed loss and the number of correct predictions of all replicas.

        If a scaled gradient is not finite, only the loss scale is halved, as Keras does on one device.

        Args:
            parts: of the batch, of the replicas of this process.
            labels: of the whole batch.
            dropout_seed: int32 [2].

        Raises:
            tf.errors.ResourceExhaustedError: a replica ran out of memory, of any process; nothing has changed.
        """
        vectors: list[tf.Tensor] = []

        def compute() -> NDArray[np.float64]:
            gradients = self.gradients(parts, len(labels), dropout_seed)
            vectors[:] = gradients.vectors
            total: NDArray[np.float64] = gradients.sums.sum(axis=0)
            return total

        loss, correct, not_finite = self.replicas.agreed(compute, 3)
        is_scaled = optimizers.is_scaled(self._optimizer)
        if math.isfinite(loss) and not (is_scaled and not_finite):
            self._update([[vector] for vector in vectors])
        if is_scaled and math.isfinite(loss):
            optimizers.adjust_loss_scale(self._optimizer, has_overflowed=bool(not_finite))
        return float(loss), int(correct)

    def gradients(self, parts: Sequence[BatchPart], images: int, dropout_seed: NDArray[Any]) -> Gradients:
        """Compute the gradients of parts of a batch, without any change and without collective operations.

        Args:
            parts: for each replica of this process.
            images: of the whole batch.
            dropout_seed: int32 [2], of the step.
        """
        longest = max(len(part) for part in parts)
        size = self._micro_batch or longest
        vectors: list[tf.Tensor] = []
        sums = np.zeros((len(parts), 3))
        for start in range(0, longest, size):
            arguments = [[*part.piece(start, size), dropout_seed + part.start + start, images] for part in parts]
            computed = self._compute_gradients(arguments)
            sums += np.stack([values.numpy() for _, values in computed])  # note: this is a CPU-GPU sync point
            vectors = [
                _added(total, vector)
                for total, (vector, _) in zip(vectors or [None] * len(parts), computed, strict=True)
            ]
        return Gradients(vectors, sums)

    def _gradients_of_replica(
        self, inputs: Any, labels: tf.Tensor, weights: tf.Tensor, dropout_seed: tf.Tensor, images: tf.Tensor
    ) -> list[tf.Tensor]:
        """Return the gradients as one vector, and the sums of `Gradients`.

        The own images are the first ones, as many as there are weights; with mixup, their partners follow.
        """
        augmented = self._examples.augment(inputs, labels)  # note: XLA has no kernel for the warp
        count = tf.shape(weights)[0]
        inputs, *blend = (values[:count] for values in augmented)
        gradients, loss_sum, correct = self._compute(inputs, labels[:count], dropout_seed, images, *blend, weights)
        vector = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], axis=0)
        is_finite = tf.reduce_all(tf.math.is_finite(vector))
        return [vector, tf.stack([loss_sum, tf.cast(correct, tf.float32), 1 - tf.cast(is_finite, tf.float32)])]

    def _update_replica(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """Sum the gradients over all replicas, and update this replica's variables."""
        total = summed(vector)
        if optimizers.is_scaled(self._optimizer):
            total /= self._optimizer.dynamic_scale
        sizes = [math.prod(variable.shape) for variable in self._variables]
        gradients = [
            tf.reshape(values, variable.shape)
            for values, variable in zip(tf.split(total, sizes), self._variables, strict=True)
        ]
        self._updater.apply(gradients, self._variables)
        return []


def _added(total: tf.Tensor | None, vector: tf.Tensor) -> tf.Tensor:
    if total is None:
        return vector
    with tf.device(vector.device):  # otherwise that of the first replica
        return total + vector
