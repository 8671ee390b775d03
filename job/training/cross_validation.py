"""Out-of-sample probabilities of the training images: five heads, each trained without the fifth that it answers for.

The heads are trained on the features as stage 1 trains its own, in the same order, with its batches, its learning rates
and its number of epochs. All five read the features together, so that an epoch costs one pass over them: head k ignores
the images of fold k. Adam treats each weight by itself, so that the heads do not influence one another. The classifier
and its random numbers are not touched.

Their loss is the plain cross-entropy, without class weights, label smoothing, weight decay or clipping: confident
learning compares the probability of a label with the mean over the images of that label, and so needs answers that are
not shifted towards the rare labels or away from 0 and 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from job import errors
from job.data.dataset import RANGE
from job.training import schedules
from job.training.prediction import prefetch
from job.training.stages import order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from job.config.settings import StageSettings
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.examples import Examples

FOLDS = 5


def folds(hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return the fold of each image, int32 [n], from its hash: images of one hash share a fold."""
    return (hashes % np.uint64(FOLDS)).astype(np.int32)


def has_seen_label(labels: NDArray[Any], fold: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which images, bool [n], have a label that the images outside of their fold have as well.

    A head that was trained without a label knows nothing of it, and would suspect each of its images.

    Args:
        labels: int [n].
        fold: int [n].
    """
    counts = np.zeros((int(labels.max()) + 1, FOLDS), np.int64)
    np.add.at(counts, (labels, fold), 1)
    seen: NDArray[np.bool_] = (counts.sum(axis=1)[labels] - counts[labels, fold]) > 0
    return seen


class FoldHeads:
    """Five heads, trained at once.

    Args:
        classifier: its head's shapes, dropout and loss. Left unchanged.
        examples: of stage 1; its train split is divided.
        fold: of the images of the train split, int32 [n].
    """

    def __init__(self, classifier: Classifier, examples: Examples, fold: NDArray[np.int32]) -> None:
        self._classifier = classifier
        self._examples = examples
        self._fold = fold
        units, outputs = classifier.output.kernel.shape
        self._units = int(units)
        self._has_hidden_layer = classifier.fc1 is not None
        fc1, output = (
            [_glorot((examples.seed, head, layer), shape) for head in range(FOLDS)]
            for layer, shape in enumerate([(classifier.feature_size, self._units), (self._units, int(outputs))])
        )
        self._hidden: list[keras.Variable] = []
        if self._has_hidden_layer:
            # The first layers of all heads are one matrix, [features, heads x units].
            self._fc1 = keras.Variable(np.concatenate(fc1, axis=1), name="folds_fc1")
            self._fc1_bias = keras.Variable(np.zeros(FOLDS * self._units, np.float32), name="folds_fc1_bias")
            self._hidden = [self._fc1, self._fc1_bias]
        self._output = keras.Variable(np.stack(output), name="folds_output")
        self._output_bias = keras.Variable(np.zeros((FOLDS, 1, int(outputs)), np.float32), name="folds_output_bias")
        self._answer = tf.function(self._logits, input_signature=[examples.spec], autograph=False)

    def train(
        self,
        settings: StageSettings,
        learning_rate: float,
        progress: Progress,
        *,
        epochs: int | None = None,
        check: Callable[[], object] = int,
    ) -> None:
        """Train the heads.

        Args:
            settings: of stage 1: epochs, batch size and schedule.
            learning_rate: Adam's; the schedule's peak.
            progress: receives the events.
            epochs: that stage 1 took its weights from, if it was stopped early; None: all of them.
            check: called after each batch; what it raises ends the training.

        Raises:
            errors.NotFiniteError: a loss is NaN or infinite.
        """
        examples, total = self._examples, len(self._examples.train)
        epochs = settings.epochs if epochs is None else epochs
        optimizer = keras.optimizers.Adam(learning_rate, name="folds_adam")
        step = self._compile(optimizer)
        with progress.phase("label errors", epochs * total, "images") as phase:
            for epoch in range(epochs):
                positions = order(examples.seed, "feature_extraction", epoch, total)
                batches = [positions[n : n + settings.batch_size] for n in range(0, total, settings.batch_size)]
                inputs = prefetch(examples.inputs, [examples.train[batch] for batch in batches])
                for number, (batch, (features, _)) in enumerate(zip(batches, inputs, strict=True)):
                    taken = epoch * len(batches) + number
                    if not schedules.is_constant(settings):
                        factor = schedules.factor(settings, taken, len(batches))
                        optimizer.learning_rate.assign(learning_rate * factor)
                    key = np.array((examples.seed % 2**32, taken), np.uint32).view(np.int32)
                    loss = float(step(features, examples.labels[examples.train[batch]], self._fold[batch], key))
                    if not math.isfinite(loss):
                        raise errors.NotFiniteError(
                            f"the loss is {loss} in epoch {epoch + 1} of the heads that look for label errors, with "
                            f"learning rate {learning_rate:g}",
                            remedy="lower feature_extraction.learning_rate",
                        )
                    phase.advance(len(batch))
                    check()

    def predict(self) -> Iterator[NDArray[Any]]:
        """Yield the probabilities of the train split, float32 [m, labels], by the heads that have not seen them."""
        examples, fold = self._examples, self._fold
        size = 16 * RANGE
        starts = range(0, len(fold), size)
        for start, (features, _) in zip(
            starts, prefetch(examples.inputs, [examples.train[n : n + size] for n in starts]), strict=True
        ):
            logits = self._answer(features).numpy()[fold[start : start + size], np.arange(len(features))]
            with tf.device("CPU:0"):
                yield self._classifier.probabilities(tf.constant(logits)).numpy()

    def _logits(self, features: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the logits of each head, float32 [heads, n, outputs], of features, float32 [n, feature_size]."""
        if dropout_seed is not None and self._classifier.dropout:
            features = tf.nn.experimental.stateless_dropout(features, self._classifier.dropout, seed=dropout_seed)
        if not self._has_hidden_layer:
            return tf.matmul(features[None], self._output) + self._output_bias
        hidden = tf.nn.relu(tf.matmul(features, self._fc1) + self._fc1_bias)
        by_head = tf.transpose(tf.reshape(hidden, (-1, FOLDS, self._units)), (1, 0, 2))
        return tf.matmul(by_head, self._output) + self._output_bias

    def _compile(self, optimizer: keras.optimizers.Optimizer) -> Callable[..., tf.Tensor]:
        """Return the training step: features, labels [n], folds [n], dropout seed -> the sum of the heads' losses."""
        variables = [*self._hidden, self._output, self._output_bias]
        optimizer.build(variables)

        def step(features: tf.Tensor, labels: tf.Tensor, fold: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
            trained = tf.cast(tf.range(FOLDS)[:, None] != fold[None], tf.float32)  # [heads, n]
            with tf.GradientTape() as tape:
                logits = self._logits(features, dropout_seed)
                flat = tf.reshape(logits, (-1, logits.shape[-1]))
                losses = self._classifier.losses(flat, tf.tile(labels, [FOLDS]))
                losses = tf.reshape(losses, (FOLDS, -1)) * trained
                loss = tf.reduce_sum(losses / tf.maximum(tf.reduce_sum(trained, axis=1, keepdims=True), 1))
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            optimizer.apply(gradients, variables)
            return loss

        vector = tf.TensorSpec((None,), tf.int32)
        signature = [self._examples.spec, vector, vector, tf.TensorSpec((2,), tf.int32)]
        compiled: Callable[..., tf.Tensor] = tf.function(step, input_signature=signature, autograph=False)
        return compiled


def _glorot(seed: tuple[int, ...], shape: tuple[int, int]) -> NDArray[Any]:
    """Return a kernel's initial weights, float32, as Keras draws them (Glorot uniform)."""
    limit = math.sqrt(6 / sum(shape))
    return np.random.default_rng(np.random.SeedSequence(seed)).uniform(-limit, limit, shape).astype(np.float32)
