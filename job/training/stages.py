"""The two stages of the recipe: one function, called with two settings.

The training loop is custom: a compiled step inside a Python loop (docs/adr/0001-own-step-loop.md). Its state is one
explicit value, `state.TrainingState`, which can be captured after any step and resumed bit-identically.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from job import errors
from job.config.settings import STAGES
from job.runtime import cluster, memory, signals
from job.training import calls, early_stopping, optimizers, replica_checks, schedules, strategy
from job.training.invariants import StageInvariants
from job.training.prediction import measure, predict, prefetch
from job.training.replicated_step import ReplicatedStep
from job.training.state import EpochResult, TrainingState
from job.training.step import compile_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from job.config.settings import StageName, StageSettings
    from job.model.classifier import Classifier
    from job.observability.progress import Progress
    from job.training.examples import Examples
    from job.training.state import Arrays
    from job.training.step import Step


class Save(Protocol):
    """Saves the state after a step."""

    def __call__(self, capture: Callable[[], TrainingState], /, *, now: bool, wait: bool) -> None:
        """Save the state if it is due or `now` is set; `wait` until it is saved."""


def run(
    stage: StageName,
    settings: StageSettings,
    classifier: Classifier,
    examples: Examples,
    state: TrainingState,
    *,
    progress: Progress,
    save: Save,
) -> None:
    """Train `classifier` with the settings of one stage, starting from `state` and updating it.

    Raises:
        errors.NotFiniteError: a loss is NaN or infinite for the second time.
        errors.InvariantError: an invariant of the recipe was violated.
        errors.StoppedError: a signal was received, and the state is saved; or raised by `save`.
    """
    state.enter(stage)
    if early_stopping.is_over(settings, state.results(stage)):
        progress.event("stage.skipped", stage=stage, epochs=settings.epochs)
        return
    with progress.phase("prepare", None, ""):
        classifier.set_trainable(stage)
        invariants, is_complete = StageInvariants(classifier, stage), (state.epoch, state.step) == (0, 0)
        trainer = StageTrainer(settings, classifier, examples, state, progress, save)
        trainer.check_replicas()
    progress.event(
        "stage.started",
        stage=stage,
        epochs=settings.epochs,
        epochs_done=state.epoch,
        step=state.step,
        learning_rate=settings.learning_rate * state.learning_rate_scale,
    )
    with signals.deferred():
        while not early_stopping.is_over(settings, state.results(stage)):
            trainer.train_epoch()
    if saved := settings.epochs - state.epoch:
        progress.event("stage.stopped_early", stage=stage, epochs=state.epoch, epochs_saved=saved)
    progress.event("stage.finished", stage=stage)
    invariants.check(is_complete=is_complete)


class StageTrainer:
    """Trains one stage: the compiled step, the optimizer, and the state that they update.

    Attributes:
        optimizer: of the stage.
    """

    def __init__(
        self,
        settings: StageSettings,
        classifier: Classifier,
        examples: Examples,
        state: TrainingState,
        progress: Progress,
        save: Save,
    ) -> None:
        self._settings = settings
        self._classifier = classifier
        self._examples = examples
        self._state = state
        self._progress = progress
        self._save = save
        self._state_lock = threading.Lock()  # held while the state is inconsistent, as during a step
        with strategy.scope(examples.replicas):
            self.optimizer = optimizers.create_optimizer(
                settings, state.learning_rate_scale, examples.precision, classifier.model.trainable_variables
            )
        self._initial_scaling = optimizers.scaling_of(optimizers.values_of(self.optimizer))
        if state.optimizer:
            self._restore_optimizer(state.optimizer)
        self._step = self._compile_step()
        self._take_several = calls.compile_several(
            self._step, examples, self.optimizer, sets_rate=not schedules.is_constant(settings)
        )
        self._pace = calls.Pace(calls.batch_bytes(examples, settings.batch_size))
        if state.step == 0:
            self._start_epoch(self.capture())
        self._has_stepped = False

    def capture(self) -> TrainingState:
        """Return a copy of the state with the values of all variables. Thread-safe: waits for the end of a step."""
        with self._state_lock:
            return self._state.captured(self._classifier.state(), optimizers.values_of(self.optimizer))

    def _compile_step(self) -> Step:
        settings, micro_batch = self._settings, self._state.micro_batch
        compiled = compile_step if self._examples.replicas is None else ReplicatedStep
        return compiled(self._classifier, self._examples, self.optimizer, micro_batch, settings.label_smoothing)

    def check_replicas(self) -> None:
        """Check that all replicas compute the same, on the first batch of the epoch; nothing changes.

        Raises:
            errors.InvariantError: one computes something else.
        """
        state, examples = self._state, self._examples
        if (replicas := examples.replicas) is None:
            return
        rows = examples.train[order(examples.seed, state.stage, state.epoch, len(examples.train))]
        rows = rows[: self._settings.batch_size]
        parts = examples.load_parts(rows, state.epoch, replicas.parts(len(rows)))

        def check(_: int) -> None:
            assert isinstance(self._step, ReplicatedStep)
            replica_checks.check_step(self._step, parts, len(rows), np.zeros(2, np.int32))

        memory.halve_until_it_fits(check, self._images_at_once(), work=state.stage, halved=self._on_halved)

    def train_epoch(self) -> None:
        """Train to the end of the current epoch, validate, and record the result."""
        state = self._state
        started = time.monotonic()
        try:
            images, wait_seconds = self._take_steps()
            train_seconds = time.monotonic() - started
            val_loss, val_accuracy = self._validate()
        except calls.DoesNotFitError:
            self._pace.stop()
            self._progress.event("training.calls_shortened", severity="warning", epoch=state.epoch, step=state.step)
            return
        except errors.NotFiniteError as error:
            if state.learning_rate_scale < 1:
                raise
            self._progress.event("training.not_finite", severity="warning", message=error.message)
            self._halve_learning_rate()
            return
        result = EpochResult(
            stage=state.stage,
            epoch=state.epoch + 1,
            loss=state.loss_sum / len(self._examples.train),
            accuracy=state.correct / len(self._examples.train),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=time.monotonic() - started,
            images_per_second=images / train_seconds,
            input_wait=wait_seconds / train_seconds,
            learning_rate=self._learning_rate(state.step - 1),
        )
        with self._state_lock:
            self._finish_epoch(result)
        self._progress.event(
            "epoch.finished",
            **dataclasses.asdict(result),
            epochs=self._settings.epochs,
            epoch_total=len(state.history),
        )
        if replicas := self._examples.replicas:
            replica_checks.check_variables(replicas, [*self._classifier.model.weights, *self.optimizer.variables])
        captured = self.capture()
        self._start_epoch(captured)
        self._finish_step(lambda: captured, now=True)

    def _finish_epoch(self, result: EpochResult) -> None:
        """Record the result, and the weights if they are the best ones; after the stage's last epoch, end it."""
        state, classifier, settings = self._state, self._classifier, self._settings
        state.finish_epoch(result)
        results = state.results(state.stage)
        is_best = state.best is None or result.val_loss < state.best.val_loss
        is_best_of_stage = settings.restore and early_stopping.best(results) is result
        weights = classifier.state() if is_best or is_best_of_stage else {}
        if is_best:
            state.best, state.best_weights = result, weights
        if is_best_of_stage:
            state.stage_best_weights = weights
        if not early_stopping.is_over(settings, results):
            return
        if settings.restore:
            classifier.load_state(state.stage_best_weights)
            state.stage_best_weights = {}
        if state.stage == "feature_extraction":
            state.feature_extraction_head = classifier.head_state()

    def _finish_step(self, capture: Callable[[], TrainingState], *, now: bool = False) -> None:
        """Save the state if it is due; after a signal, save it and stop.

        Several replicas stop after the step in which all processes have agreed on it.

        Raises:
            errors.StoppedError: a signal was received.
            errors.PeerLostError: another worker has received one.
        """
        signal = signals.received() if self._examples.replicas is None else self._examples.replicas.stop_signal
        self._save(capture, now=now or signal is not None, wait=signal is not None)
        if signal and not signals.received():  # another worker ends, and this one waits for the next start of that one
            raise cluster.lost_error("another worker was stopped by a signal; the state is saved")
        if signal:
            raise errors.StoppedError(
                f"stopped by {signal}; the state is saved", remedy="start it again with the same settings: it resumes"
            )

    def _restore_optimizer(self, values: Arrays) -> None:
        """Set the optimizer's variables. Loss-scaling variables that it lacks are ignored, missing ones are reset.

        Adam's variables are float32 in every precision, so training can resume on another kind of GPU.
        """
        optimizers.load_values(self.optimizer, self._initial_scaling | values)

    def _start_epoch(self, captured: TrainingState) -> None:
        """Store the state at the start of an epoch, for a rollback."""
        self._state.start_weights, self._state.start_optimizer = captured.weights, captured.optimizer

    def _take_steps(self) -> tuple[int, float]:
        """Take the remaining steps of the epoch; return their image count and the seconds spent waiting for data."""
        state, settings, examples = self._state, self._settings, self._examples
        total = len(examples.train)
        rows = examples.train[order(examples.seed, state.stage, state.epoch, total)]
        steps = math.ceil(total / settings.batch_size)
        done = min(state.step * settings.batch_size, total)
        wait_seconds = 0.0
        with self._progress.phase(
            f"{state.stage} {state.epoch + 1}/{settings.epochs}", total, "images", done=done
        ) as phase:
            load = functools.partial(examples.load_call, epoch=state.epoch)
            for (batches, inputs), wait in prefetch(load, self._calls(rows, steps)):
                started = time.monotonic()
                with self._changing_state():
                    losses, correct = self._take_call(batches, inputs, steps)
                    for number, loss in enumerate(losses, state.step + 1):
                        if not math.isfinite(loss):
                            raise self._not_finite(f"the loss is {loss}", f", step {number}")
                        state.loss_sum += loss
                    state.correct += correct
                    state.step += len(losses)
                seconds = time.monotonic() - started
                if batches.shape[1] == settings.batch_size:
                    self._pace.record(len(losses), seconds)
                if self._progress.each_step:
                    self._progress.event(
                        "step.taken",
                        severity="debug",
                        stage=state.stage,
                        epoch=state.epoch,
                        step=state.step,
                        steps=steps,
                    )
                if not self._has_stepped:  # logged once: from here on the GPU is in use
                    self._has_stepped = True
                    self._progress.event("stage.first_step", stage=state.stage, step=state.step, seconds=seconds)
                wait_seconds += wait
                phase.advance(batches.size, loss=losses[-1] / batches.shape[1], step=state.step, steps=steps)
                self._finish_step(self.capture)
        return total - done, wait_seconds

    def _calls(self, rows: NDArray[Any], steps: int) -> Iterator[NDArray[Any]]:
        """Yield the rows of each call in the rest of the epoch: int [steps of the call, images].

        The number of steps is chosen when the inputs are to be loaded. A last, smaller batch is a call of its own.

        Args:
            rows: of the epoch, in its order.
            steps: of the epoch.
        """
        state, settings, step = self._state, self._settings, self._state.step
        while step < steps:
            several = calls.may_be_long(self._examples, state) and not self._progress.each_step
            count = self._pace.choose((settings.epochs - state.epoch) * steps - step) if several else 1
            count = max(1, min(count, len(rows) // settings.batch_size - step))
            yield rows[step * settings.batch_size :][: count * settings.batch_size].reshape(count, -1)
            step += count

    def _take_call(self, batches: NDArray[Any], inputs: Any, steps: int) -> tuple[list[float], int]:
        """Take the steps of a call; return the summed loss of each, and the correct predictions of all.

        Args:
            batches: rows, int [steps of the call, images].
            inputs: of them: as `Examples.load_call` returns them.
            steps: of the epoch.

        Raises:
            calls.DoesNotFitError: several steps do not fit into the device's memory.
            errors.FinetuneError: see `take_step`.
        """
        state, examples = self._state, self._examples
        taken = range(state.step, state.step + len(batches))
        # note: a key is that of the step within the run, so that a resumed run drops the same features
        seed = (examples.seed + STAGES.index(state.stage)) % 2**32
        keys = np.array([(seed, state.epoch * steps + step) for step in taken], np.uint32).view(np.int32)
        labels = examples.labels[batches]
        if len(batches) == 1:
            self._set_learning_rate()
            loss, correct = self.take_step((inputs, labels[0], keys[0]))
            return [loss], correct
        rates = np.array([self._learning_rate(step) for step in taken], np.float32)
        losses, hits = self._take_several(inputs, labels, keys, rates)
        return losses.tolist(), int(hits.sum())

    def _validate(self) -> tuple[float, float]:
        """Return the loss and the accuracy on the validation split."""
        state, examples, rows = self._state, self._examples, self._examples.validation
        with self._progress.phase(
            f"{state.stage} {state.epoch + 1}/{self._settings.epochs} validation", len(rows), "images"
        ) as phase:

            def after_batch(images: int) -> None:
                phase.advance(images)
                self._finish_step(self.capture)

            batch_size = state.micro_batch or self._settings.batch_size
            logits = predict(examples, rows, batch_size, state, self._progress, after_batch)
        loss, accuracy = measure(self._classifier, logits, examples.labels[rows], examples.class_weights)
        if not math.isfinite(loss):
            with self._changing_state():
                raise self._not_finite(f"the validation loss is {loss}")
        return loss, accuracy

    def _not_finite(self, problem: str, position: str = "") -> errors.NotFiniteError:
        state, learning_rate = self._state, self._settings.learning_rate
        return errors.NotFiniteError(
            f"{problem} in {state.stage}, epoch {state.epoch + 1}{position}, "
            f"with learning rate {learning_rate * state.learning_rate_scale:g}",
            remedy=f"lower {state.stage}.learning_rate, which is {learning_rate:g}",
        )

    def take_step(self, arguments: tuple[Any, NDArray[Any], NDArray[Any]]) -> tuple[float, int]:
        """Take one step, of inputs, labels and the dropout seed; return the summed loss and the correct predictions.

        If it does not fit into the device's memory, it is taken in micro-batches, halved until they fit.

        BatchNormalization is frozen, so the gradients of the micro-batches add up to those of the batch.

        A float16 step whose scaled gradients overflow only halves the loss scale. It is repeated, so that a stage has
        the same number of steps in every precision: the initial scale is too high for most models.

        Raises:
            errors.DeviceMemoryError: a micro-batch of one image does not fit.
            errors.NotFiniteError: the gradients are not finite at the smallest loss scale.
        """

        def take(_: int) -> tuple[float, int]:
            loss, correct = self._step(*arguments)
            return float(loss), int(correct)  # note: this is a CPU-GPU sync point

        while True:
            images = self._images_at_once()
            scale = optimizers.loss_scale(self.optimizer)
            loss, correct = memory.halve_until_it_fits(take, images, work=self._state.stage, halved=self._on_halved)
            if not math.isfinite(loss) or optimizers.loss_scale(self.optimizer) >= scale:
                return loss, correct
            if scale <= 1:
                raise self._not_finite(f"a gradient is not finite at a loss scale of {scale:g}")
            self._progress.event("training.loss_scale_halved", severity="debug", loss_scale=scale / 2)

    def _images_at_once(self) -> int:
        """Return how many images' gradients are computed at once, on each replica."""
        replicas = 1 if self._examples.replicas is None else self._examples.replicas.total
        return self._state.micro_batch or -(-self._settings.batch_size // replicas)

    def _on_halved(self, images: int) -> None:
        self._state.micro_batch = images
        self._progress.event("training.micro_batch_halved", severity="warning", micro_batch=images)
        self._step = self._compile_step()

    def _learning_rate(self, step: int) -> float:
        """Return the learning rate of a step of the current epoch."""
        state, settings = self._state, self._settings
        steps = math.ceil(len(self._examples.train) / settings.batch_size)
        return schedules.learning_rate(settings, state.epoch * steps + step, steps) * state.learning_rate_scale

    def _set_learning_rate(self) -> None:
        """Set the learning rate of the next step."""
        if not schedules.is_constant(self._settings):
            self.optimizer.learning_rate.assign(self._learning_rate(self._state.step))

    @contextlib.contextmanager
    def _changing_state(self) -> Iterator[None]:
        """Block captures while the state is inconsistent.

        After a non-finite loss or gradient, or a call that did not fit into the device's memory, roll back to the start
        of the epoch before the error propagates.
        """
        with self._state_lock:
            try:
                yield
            except (errors.NotFiniteError, calls.DoesNotFitError):
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        """Restore the state at the start of the epoch."""
        state = self._state
        self._classifier.load_state(state.start_weights)
        self._restore_optimizer(state.start_optimizer)
        state.step, state.loss_sum, state.correct = 0, 0.0, 0

    def _halve_learning_rate(self) -> None:
        """Halve the learning rate from the start of the epoch on."""
        state = self._state
        with self._state_lock:
            state.learning_rate_scale /= 2
            self.optimizer.learning_rate.assign(self.optimizer.learning_rate / 2)
        self._progress.event(
            "training.rolled_back",
            severity="warning",
            epoch=state.epoch,
            step=state.step,
            learning_rate=self._learning_rate(state.step),
        )


def order(seed: int, stage: StageName, epoch: int, images: int) -> NDArray[Any]:
    """Return the order in which an epoch reads its images: a permutation, int64 [images].

    It depends on the arguments alone, so a resumed run reads the same order as an uninterrupted one.
    """
    key = np.random.SeedSequence((seed, STAGES.index(stage), epoch))
    return np.random.Generator(np.random.Philox(key)).permutation(images)
