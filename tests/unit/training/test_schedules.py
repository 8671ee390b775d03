"""The learning rate of each step."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from job.config.settings import StageSettings
from job.training import schedules

STEPS = 4
"""Of an epoch."""


def rates(**values: object) -> list[float]:
    """Return the rates of all steps of a stage of three epochs."""
    settings = StageSettings(**{"epochs": 3, "learning_rate": 0.8, **values})
    return [schedules.learning_rate(settings, step, STEPS) for step in range(3 * STEPS)]


def test_constant() -> None:
    """By default every step has the very rate of the settings."""
    assert [0.8] * 12 == rates()
    assert schedules.is_constant(StageSettings(learning_rate=0.8))


@pytest.mark.parametrize("values", [{"schedule": "cosine"}, {"schedule": "linear"}, {"warmup_epochs": 0.5}])
def test_what_is_not_constant(values: dict[str, object]) -> None:
    """A schedule, or a warm-up alone, changes the rate from step to step."""
    assert not schedules.is_constant(StageSettings(learning_rate=0.8, **values))
    assert len(set(rates(**values))) > 2


@pytest.mark.parametrize("warmup", [0, 0.5, 1])
def test_cosine_is_keras_s(warmup: float) -> None:
    """The cosine, after its warm-up, is that of Keras."""
    steps = round(warmup * STEPS)
    theirs = keras.optimizers.schedules.CosineDecay(
        0.8 / (steps + 1) if steps else 0.8,
        12 - steps,
        alpha=0.25,
        warmup_target=0.8 if steps else None,
        warmup_steps=steps,
    )

    ours = rates(schedule="cosine", warmup_epochs=warmup, min_learning_rate=0.2)

    np.testing.assert_allclose(ours, [float(theirs(step)) for step in range(12)], rtol=1e-5)


def test_linear_is_keras_s() -> None:
    """The line is that of Keras's PolynomialDecay of power 1."""
    theirs = keras.optimizers.schedules.PolynomialDecay(0.8, 12, end_learning_rate=0.2)

    ours = rates(schedule="linear", min_learning_rate=0.2)

    np.testing.assert_allclose(ours, [float(theirs(step)) for step in range(12)], rtol=1e-5)


def test_warmup_reaches_the_rate() -> None:
    """The warm-up rises in equal steps, none of them 0, to the rate of the settings, which then stays."""
    np.testing.assert_allclose([0.16, 0.32, 0.48, 0.64, *[0.8] * 8], rates(warmup_epochs=1))


def test_warmup_longer_than_the_stage() -> None:
    """A warm-up that outlasts the stage only rises, under any schedule."""
    rising = rates(schedule="cosine", warmup_epochs=5)

    assert sorted(rising) == rising
    assert max(rising) < 0.8
    assert rates(schedule="cosine", warmup_epochs=3)[-1] < 0.8
