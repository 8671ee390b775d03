"""Several steps in one call are the same steps, and there are several only where it pays."""

from __future__ import annotations

import dataclasses
import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import LABELS, examples, small_classifier
from short_stages import same_arrays, settings

from job.config.settings import Settings
from job.training import calls, optimizers
from job.training.step import compile_step

if TYPE_CHECKING:
    from job.model.classifier import Classifier
    from job.training.examples import Examples

SEVERAL = 1_000_000
"""Steps left: enough for several steps a call."""


@pytest.fixture(autouse=True)
def _second_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second of processor time pass between the creation of a pace and the end of its first step."""
    seconds = itertools.count()
    monkeypatch.setattr(calls, "time", SimpleNamespace(thread_time=lambda: next(seconds)))


def measured(step_seconds: float, batch_bytes: int = 1) -> calls.Pace:
    """Return a pace that knows the compilation, a second, and the time of a step."""
    pace = calls.Pace(batch_bytes)
    pace.record(1, 2.0)
    pace.record(1, step_seconds)
    return pace


def test_first_steps_are_calls_of_their_own() -> None:
    """Until a step was measured, each is a call; the first one is no measurement, since it is compiled."""
    pace = calls.Pace(1)
    chosen = [pace.choose(SEVERAL)]
    for seconds in (0.001, 0.001):
        pace.record(1, seconds)
        chosen.append(pace.choose(SEVERAL))

    assert [1, 1, calls.MAX_STEPS] == chosen


@pytest.mark.parametrize(("seconds", "expected"), [(0.0007, 16), (0.02, 16), (0.021, 1), (3.0, 1)])
def test_long_steps_are_calls_of_their_own(seconds: float, expected: int) -> None:
    """A call takes at most a third of a second, and a step that hardly gains from it is not compiled again."""
    assert expected == measured(seconds).choose(SEVERAL)
    assert calls.MAX_STEPS * calls.MAX_STEP_SECONDS < 0.5


def test_inputs_of_a_call_are_limited() -> None:
    """A call has as many batches as fit into the limit of bytes, at least one."""
    pixels = 32 * 224 * 224 * 3
    assert [6, 1] == [measured(0.001, bytes_).choose(SEVERAL) for bytes_ in (pixels, 10 * calls.MAX_BYTES)]
    assert pixels == calls.batch_bytes(examples_of_shape((None, 224, 224, 3), tf.uint8), 32)
    assert 32 * 1280 * 4 == calls.batch_bytes(examples_of_shape((None, 1280), tf.float32), 32)


def examples_of_shape(shape: tuple[int | None, ...], dtype: tf.DType) -> Examples:
    """Return examples whose inputs have this shape."""
    data = examples(small_classifier(), "feature_extraction")
    return dataclasses.replace(data, spec=tf.TensorSpec(shape, dtype))


def test_compilation_must_pay() -> None:
    """Where the steps left save less than the compilation takes, it is not begun; once it is done, it is used."""
    pace = measured(0.001)
    few = int(1 / calls.SAVED_SECONDS)
    assert [1, calls.MAX_STEPS] == [pace.choose(few), pace.choose(few + 1)]

    pace.record(16, 2.0)  # with the compilation
    assert calls.MAX_STEPS == pace.choose(1)


def test_pace_follows_the_steps() -> None:
    """Steps that become slower are calls of their own until they are fast again."""
    pace, chosen = measured(0.001), []
    pace.record(16, 1.0)
    for steps, seconds in ((16, 16 * 0.03), (1, 0.03), (1, 0.01), (16, 0.016)):
        pace.record(steps, seconds)
        chosen.append(pace.choose(SEVERAL))

    assert [1, 1, 16, 16] == chosen


def test_stopped_pace() -> None:
    """After a call that did not fit, each step is a call, however fast it is."""
    pace = measured(0.001)
    pace.stop()

    assert 1 == pace.choose(SEVERAL)


@pytest.fixture
def classifier() -> Classifier:
    """A classifier of two convolutions, with dropout in its head."""
    classifier = small_classifier()
    classifier.dropout = 0.5
    return classifier


BATCHES = np.array([[0, 5, 2], [7, 1, 4], [3, 6, 0], [2, 4, 6], [1, 3, 5]])
SEEDS = np.arange(10, dtype=np.int32).reshape(5, 2)
RATES = np.float32([1e-3, 3e-3, 2e-3, 1e-4, 5e-3])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["feature_extraction", "fine_tuning"])
def test_several_steps_are_the_same_steps(classifier: Classifier, stage: Any) -> None:
    """Calls of 2 and 3 steps end in the bits of 5 calls: losses, weights, optimizer; both use one compiled function."""
    tf.config.experimental.enable_op_determinism()
    classifier.set_trainable(stage)
    changes = {"flip": "both", "contrast": 0.3, "mixup": 0.4}
    data = examples(
        classifier, stage, Settings.model_validate({"augmentation": changes, "feature_extraction": {"views": 0}})
    )
    optimizer = optimizers.create_optimizer(settings(), 1.0, "float32", classifier.model.trainable_variables)
    before, start = classifier.state(), optimizers.values_of(optimizer)
    step, traced = compile_step(classifier, data, optimizer), []

    def spy(*arguments: Any) -> Any:
        traced.append(arguments)
        return step(*arguments)

    expected = []
    for rows, seed, rate in zip(BATCHES, SEEDS, RATES, strict=True):
        optimizer.learning_rate.assign(rate)
        loss, correct = step(data.load_for_training(rows, 0), LABELS[rows], seed)
        expected.append((float(loss), int(correct)))
    weights, values = classifier.state(), optimizers.values_of(optimizer)

    classifier.load_state(before)
    optimizers.load_values(optimizer, start)
    several, seen = calls.compile_several(spy, data, optimizer, sets_rate=True), []
    for part in (slice(0, 2), slice(2, 5)):
        batches, inputs = data.load_call(BATCHES[part], 0)
        seen += zip(*several(inputs, LABELS[batches], SEEDS[part], RATES[part]), strict=True)

    assert expected == seen
    assert same_arrays(weights, classifier.state())
    assert same_arrays(values, optimizers.values_of(optimizer))
    assert 1 == len(traced)


def test_constant_rate_is_not_set(classifier: Classifier) -> None:
    """Without a schedule the steps leave the optimizer's learning rate alone."""
    classifier.set_trainable("feature_extraction")
    data = examples(classifier, "feature_extraction")
    optimizer = optimizers.create_optimizer(settings(), 1.0, "float32", classifier.model.trainable_variables)
    several = calls.compile_several(compile_step(classifier, data, optimizer), data, optimizer, sets_rate=False)
    batches, inputs = data.load_call(BATCHES, 0)
    several(inputs, LABELS[batches], SEEDS, RATES)

    assert np.float32(1e-3) == optimizer.learning_rate.numpy()


@pytest.mark.parametrize("kind", [tf.errors.ResourceExhaustedError, tf.errors.InternalError])
def test_call_that_does_not_fit(classifier: Classifier, kind: type[Exception]) -> None:
    """A device without memory for the steps, or for their inputs, is an error of the call, not of the run."""
    data = examples(classifier, "feature_extraction")
    optimizer = optimizers.create_optimizer(settings(), 1.0, "float32", classifier.model.trainable_variables)

    def step(*_: Any) -> Any:
        raise kind(None, None, "OOM when allocating tensor")

    several = calls.compile_several(step, data, optimizer, sets_rate=False)
    batches, inputs = data.load_call(BATCHES, 0)
    with pytest.raises(calls.DoesNotFitError):
        several(inputs, LABELS[batches], SEEDS, RATES)
