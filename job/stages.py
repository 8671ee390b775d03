"""The two stages of the recipe: one function, called with two settings.

The training loop is our own: a compiled step, and a Python loop around it (docs/adr/0001-own-step-loop.md). All that
changes while it runs is one explicit value, `TrainingState`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from job import errors
from job.invariants import StageInvariants
from job.model import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from job.config import StageSettings
    from job.dataset import Dataset
    from job.model import Classifier, StageName
    from job.progress import Progress

Array = np.ndarray[Any, Any]
Step: TypeAlias = "Callable[[Array, Array, Array], tuple[tf.Tensor, tf.Tensor]]"
"""A compiled training step: inputs, labels, dropout seed -> the batch's summed loss, and how many were right."""


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One row of history.csv. `loss` and `accuracy` are means over the epoch's steps, taken while the weights moved."""

    stage: StageName
    epoch: int
    """Counted from 1, on through both stages."""
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    """Validation counted."""
    images_per_second: float
    """Training images a second, validation not counted."""
    input_wait: float
    """The share of the training time spent waiting for data, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """The epoch with the lowest validation loss so far, over both stages, and its weights."""

    epoch: EpochResult
    weights: dict[str, Array]


@dataclass(kw_only=True)
class TrainingState:
    """All that changes while training, but for the values of the model's and the optimizer's variables.

    `epoch` and `step` count from 0 within the stage and name what comes next.
    """

    stage: StageName = "feature_extraction"
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    history: list[EpochResult] = field(default_factory=list)
    best: Best | None = None


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a stage learns from and is measured with, by rows of the manifest.

    Attributes:
        inputs: rows -> [n, ...], what `logits` takes.
        spec: their shape, its first dimension None, and dtype.
        logits: inputs and the dropout seed (or None) -> logits; differentiable in the stage's variables.
        labels: int32 [images].
        train: the rows to learn from.
        validation: the rows to measure with.
    """

    inputs: Callable[[Array], Array]
    spec: tf.TensorSpec
    logits: Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
    labels: Array
    train: Array
    validation: Array


def examples(
    classifier: Classifier, images: Dataset, features: Array, rows_of: dict[str, Array]
) -> dict[StageName, Examples]:
    """Return what each stage learns from: stage 1 from features, stage 2 from pixels.

    Args:
        classifier: folded.
        images: the data, after the pass.
        features: float32 [images, feature_size], all rows written.
        rows_of: the split's name -> rows, int [n].
    """
    size = classifier.image_size
    shared = {
        "labels": images.manifest.label,
        "train": rows_of["train"],
        "validation": rows_of["validation"],
    }
    return {
        "feature_extraction": Examples(
            inputs=lambda rows: features[rows],
            spec=tf.TensorSpec((None, classifier.feature_size), tf.float32),
            logits=classifier.head_logits,
            **shared,
        ),
        "fine_tuning": Examples(
            inputs=images.pixels,
            spec=tf.TensorSpec((None, size, size, 3), tf.uint8),
            logits=classifier.logits,
            **shared,
        ),
    }


def keep(which: Literal["best", "last"], classifier: Classifier, state: TrainingState) -> EpochResult:
    """Load the weights that are published into `classifier`, and return the epoch they are of."""
    assert state.best is not None, "a run has at least one epoch"
    if which == "last":
        return state.history[-1]
    classifier.load_state(state.best.weights)
    return state.best.epoch


def run(
    stage: StageName,
    settings: StageSettings,
    classifier: Classifier,
    examples: Examples,
    state: TrainingState,
    *,
    seed: int,
    progress: Progress,
) -> None:
    """Train `classifier` by the settings of one stage, and note in `state` what came out.

    Raises:
        errors.NotFiniteError: a loss is NaN or infinite.
        errors.InvariantError: the recipe was not followed.
    """
    if not settings.epochs:
        progress.event("stage.skipped", stage=stage)
        return
    classifier.set_trainable(stage)
    invariants = StageInvariants(classifier, stage)
    state.stage, state.epoch, state.step = stage, 0, 0
    step = _compile(classifier, examples, keras.optimizers.Adam(settings.learning_rate))
    predict = predictor(examples, settings.batch_size)
    progress.event("stage.started", stage=stage, epochs=settings.epochs, learning_rate=settings.learning_rate)
    while state.epoch < settings.epochs:
        started = time.monotonic()
        wait = _train_epoch(step, settings, examples, state, seed, progress)
        trained = time.monotonic()
        held_out = examples.validation
        val_loss, val_accuracy = measure(classifier, predict(held_out), examples.labels[held_out])
        images = len(examples.train)
        result = EpochResult(
            stage=stage,
            epoch=len(state.history) + 1,
            loss=state.loss_sum / images,
            accuracy=state.correct / images,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.monotonic() - started,
            images_per_second=images / (trained - started),
            input_wait=wait / (trained - started),
        )
        state.history.append(result)
        state.epoch, state.step, state.loss_sum, state.correct = state.epoch + 1, 0, 0.0, 0
        if state.best is None or val_loss < state.best.epoch.val_loss:
            state.best = Best(epoch=result, weights=classifier.state())
        progress.event(
            "epoch.finished",
            **dataclasses.asdict(result),
            epochs=settings.epochs,
        )
    progress.event("stage.finished", stage=stage)
    invariants.check()


def order(seed: int, stage: StageName, epoch: int, images: int) -> Array:
    """Return the order in which an epoch reads its images: a permutation, int64 [images].

    A function of its arguments alone, so that a resumed run reads what an undisturbed one would have read.
    """
    key = np.random.SeedSequence((seed, STAGES.index(stage), epoch))
    return np.random.Generator(np.random.Philox(key)).permutation(images)


def predictor(examples: Examples, batch_size: int) -> Callable[[Array], Array]:
    """Return a compiled function: rows, int [n] -> their logits, float32 [n, outputs], in the same order."""

    def forward(inputs: tf.Tensor) -> tf.Tensor:
        return examples.logits(inputs, None)

    logits = tf.function(forward, input_signature=[examples.spec])

    def predict(rows: Array) -> Array:
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        return np.concatenate([logits(inputs).numpy() for inputs, _ in prefetch(examples.inputs, batches)])

    return predict


def measure(classifier: Classifier, logits: Array, labels: Array) -> tuple[float, float]:
    """Return the mean cross-entropy and the accuracy of logits, float32 [n, outputs], against labels, int32 [n]."""
    losses = classifier.losses(tf.constant(logits), tf.constant(labels)).numpy()
    correct = classifier.predictions(tf.constant(logits)).numpy() == labels
    return float(losses.mean(dtype=np.float64)), float(correct.mean())


def prefetch(load: Callable[[Array], Array], batches: Sequence[Array]) -> Iterator[tuple[Array, float]]:
    """Load each batch's inputs in the background, two ahead.

    Yields:
        The inputs, and the seconds spent waiting for them.
    """
    with ThreadPoolExecutor(1, "prefetch") as pool:
        ahead = deque(pool.submit(load, rows) for rows in batches[:2])
        for rows in [*batches[2:], None, None][: len(batches)]:
            started = time.monotonic()
            inputs = ahead.popleft().result()
            if rows is not None:
                ahead.append(pool.submit(load, rows))
            yield inputs, time.monotonic() - started


def _compile(classifier: Classifier, examples: Examples, optimizer: keras.optimizers.Optimizer) -> Step:
    """Return the training step.

    The variables are those that are trainable now: a flag changed later has no effect on this step.
    """
    variables = classifier.model.trainable_variables
    optimizer.build(variables)
    labels_spec, seed_spec = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((2,), tf.int32)

    def step(inputs: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = examples.logits(inputs, dropout_seed)
            losses = classifier.losses(logits, labels)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, variables), variables)
        right = tf.equal(classifier.predictions(logits), labels)
        return tf.reduce_sum(losses), tf.math.count_nonzero(right, dtype=tf.int32)

    compiled: Step = tf.function(step, input_signature=[examples.spec, labels_spec, seed_spec])
    return compiled


def _train_epoch(
    step: Step,
    settings: StageSettings,
    examples: Examples,
    state: TrainingState,
    seed: int,
    progress: Progress,
) -> float:
    """Take the steps of one epoch that `state` has not taken yet; return the seconds spent waiting for data."""
    images = len(examples.train)
    rows = examples.train[order(seed, state.stage, state.epoch, images)]
    batches = [rows[start : start + settings.batch_size] for start in range(0, images, settings.batch_size)]
    waited = 0.0
    title = f"{state.stage} {state.epoch + 1}/{settings.epochs}"
    with progress.phase(title, images, "images", done=state.step * settings.batch_size) as phase:
        remaining = batches[state.step :]
        for batch, (inputs, wait) in zip(remaining, prefetch(examples.inputs, remaining), strict=True):
            # note: the key is of the step within the run, so that a resumed run drops the same features
            key = (seed + STAGES.index(state.stage), state.epoch * len(batches) + state.step)
            loss, correct = step(inputs, examples.labels[batch], np.array(key, np.int32))
            loss_sum = float(loss)  # note: this is a CPU-GPU sync point
            if not math.isfinite(loss_sum):
                raise errors.NotFiniteError(
                    f"the loss is {loss_sum} in {state.stage}, epoch {state.epoch + 1}, step {state.step + 1}",
                    remedy=f"lower {state.stage}.learning_rate, which is {settings.learning_rate:g}",
                )
            state.loss_sum += loss_sum
            state.correct += int(correct)
            state.step += 1
            waited += wait
            phase.advance(len(batch), loss=loss_sum / len(batch), step=state.step, steps=len(batches))
    return waited
