"""Several training steps in one call: how many, and the function that takes them.

Calling a compiled function costs about as much as the arithmetic of a small step, such as one of the head on stored
features. A loop within one compiled function takes the same steps with one call.

The number of steps of a call changes no bit of the result, so it is chosen by the clock. A checkpoint and a stop wait
for the end of a call, so a call is kept short.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    from numpy.typing import NDArray

    from job.training.examples import Examples
    from job.training.state import TrainingState
    from job.training.step import Step

MAX_STEPS: Final = 16
"""In a call. It leaves a sixteenth of the cost of calling; more steps would take memory for little."""

MAX_STEP_SECONDS: Final = 0.02
"""A longer step is a call of its own: it gains below 2 %. So a call takes at most a third of a second."""

MAX_BYTES: Final = 32 * 2**20
"""Of the inputs of a call. Three calls are in memory: the current one, and the two that are loaded ahead."""

SAVED_SECONDS: Final = 0.25e-3
"""Of processor time that each step in a call of several saves, at least. Where all steps left save less than the
compilation takes, each is a call of its own."""

SeveralSteps: TypeAlias = "Callable[[Any, NDArray[Any], NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]"
"""Several steps in one call: inputs [k, n, …], labels int32 [k, n], dropout seeds int32 [k, 2], learning rates float32
[k] -> summed loss float32 [k] and number of correct predictions int32 [k], of each step."""


class DoesNotFitError(Exception):
    """A call of several steps does not fit into the device's memory. Some of its steps may have been taken."""


def compile_several(
    step: Step, examples: Examples, optimizer: keras.optimizers.Optimizer, *, sets_rate: bool
) -> SeveralSteps:
    """Return the function that takes several steps in one call. It is compiled when it is first called.

    It raises DoesNotFitError if the call does not fit into the device's memory.

    Args:
        step: takes one step, of a whole batch.
        examples: define the step's inputs.
        optimizer: of the step.
        sets_rate: each step sets the optimizer's learning rate first.
    """

    def take(inputs: Any, labels: tf.Tensor, seeds: tf.Tensor, rates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps = tf.shape(labels)[0]

        def body(number: tf.Tensor, losses: tf.TensorArray, correct: tf.TensorArray) -> tuple[Any, ...]:
            if sets_rate:
                optimizer.learning_rate.assign(rates[number])
            one = tf.nest.map_structure(lambda values: values[number], inputs)
            loss, hits = step(one, labels[number], seeds[number])
            return number + 1, losses.write(number, loss), correct.write(number, hits)

        results = tf.TensorArray(tf.float32, steps), tf.TensorArray(tf.int32, steps)
        # note: with more parallel iterations, a step might begin before the one before it has changed the weights
        _, losses, correct = tf.while_loop(
            lambda number, *_: number < steps, body, (tf.constant(0), *results), parallel_iterations=1
        )
        return losses.stack(), correct.stack()

    compiled = tf.function(take, input_signature=_signature(examples), autograph=False)

    def take_several(*arguments: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        try:
            losses, correct = compiled(*arguments)
            return losses.numpy(), correct.numpy()
        # note: inputs for which the device has no memory are an internal error
        except (tf.errors.ResourceExhaustedError, tf.errors.InternalError) as error:
            raise DoesNotFitError from error

    return take_several


def _signature(examples: Examples) -> list[Any]:
    inputs = tf.nest.map_structure(lambda spec: tf.TensorSpec((None, *spec.shape), spec.dtype), examples.step_spec)
    others = (((None, None), tf.int32), ((None, 2), tf.int32), ((None,), tf.float32))
    return [inputs, *(tf.TensorSpec(shape, dtype) for shape, dtype in others)]


class Pace:
    """Chooses the number of steps of each call of a stage, from the time that steps take. Of use in one thread.

    Args:
        batch_bytes: of the inputs of a step.
    """

    def __init__(self, batch_bytes: int) -> None:
        self._limit = max(1, min(MAX_STEPS, MAX_BYTES // max(1, batch_bytes)))
        self._created = time.thread_time()  # note: other work on the machine does not change it much
        self._compiling_seconds = math.inf
        self._step_seconds = math.inf
        self._called_with_one = self._called_with_several = False

    def choose(self, steps_left: int) -> int:
        """Return the number of steps of the next call.

        Args:
            steps_left: of the stage.
        """
        if self._step_seconds > MAX_STEP_SECONDS:
            return 1
        pays = self._called_with_several or steps_left * SAVED_SECONDS > self._compiling_seconds
        return self._limit if pays else 1

    def record(self, steps: int, seconds: float) -> None:
        """Count a call, of whole batches, with the seconds that it took.

        The first call of one step and the first of several are with their compilation. That of several takes less time.
        """
        if steps == 1 and not self._called_with_one:
            self._called_with_one, self._compiling_seconds = True, time.thread_time() - self._created
        elif steps > 1 and not self._called_with_several:
            self._called_with_several = True
        else:
            self._step_seconds = seconds / steps

    def stop(self) -> None:
        """Choose one step from now on."""
        self._limit = 1


def may_be_long(examples: Examples, state: TrainingState) -> bool:
    """Whether a call may take several steps of this stage."""
    # A step in float16 may have to be repeated before the next one; micro-batches are calls of their own; and several
    # replicas agree after each step on what follows.
    return examples.precision != "float16" and state.micro_batch is None and examples.replicas is None


def batch_bytes(examples: Examples, images: int) -> int:
    """Return the bytes of the inputs of a step of so many images, without the numbers of the augmentation."""
    spec = examples.gradient_spec
    return int(images * math.prod(spec.shape[1:]) * spec.dtype.size)
