"""The learning rate of each step: a function of the settings and the step's number alone.

Nothing is stored between steps, so a resumed stage has the rates of an undisturbed one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from job.config.settings import StageSettings


def is_constant(settings: StageSettings) -> bool:
    """Whether every step has the same learning rate."""
    return settings.schedule == "constant" and settings.warmup_epochs == 0


def learning_rate(settings: StageSettings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step.

    It is that of `keras.optimizers.schedules.CosineDecay`, or `PolynomialDecay` of power 1, after a linear warm-up of W
    steps, of which step s, counted from 0, has (s + 1) / (W + 1) of `settings.learning_rate`: no step has a rate of 0.

    Args:
        settings: of the stage.
        step: of the stage, from 0.
        steps_per_epoch: in the whole data, the last, smaller batch included.
    """
    return settings.learning_rate * factor(settings, step, steps_per_epoch)


def factor(settings: StageSettings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step as a fraction of `settings.learning_rate`; see `learning_rate`."""
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    progress = (step - warmup) / (settings.epochs * steps_per_epoch - warmup)
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if settings.schedule == "cosine" else 1 - progress
    lowest = settings.min_learning_rate / settings.learning_rate
    return lowest + (1 - lowest) * remaining
