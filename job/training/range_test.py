"""The loss over the learning rate, as a learning-rate range test measures it, and the rate that it suggests.

Smith, Cyclical Learning Rates for Training Neural Networks, https://arxiv.org/abs/1506.01186.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import StageName

SMOOTHING: Final = 0.9
"""Weight of the steps before in the smoothed loss: an exponential moving average."""

DIVERGED: Final = 3.0
"""A smoothed loss of so many times the first one ends the test."""

LEAST_FALL: Final = 0.05
"""Fraction by which the smoothed loss must fall below the first one: else no learning rate is suggested."""

SAFETY: Final = 10.0
"""The suggestion is so many times below the rate at which the smoothed loss was lowest: there it is about to rise."""


class Curve(NamedTuple):
    """The loss of a stage over the learning rate.

    Attributes:
        stage: of the recipe.
        configured: the learning rate of the settings.
        rates: of each step.
        losses: of each step: its batch's mean training loss, less that of the same images before the first step, plus
            that of all images then. Batches of easy and of difficult images so have the same level, and the first
            steps, which hardly change the weights, are a level line.
        diverged: the test ended before its highest rate.
    """

    stage: StageName
    configured: float
    rates: list[float]
    losses: list[float]
    diverged: bool

    @property
    def smoothed(self) -> list[float]:
        """The losses as an exponential moving average without the bias of its start."""
        return smoothed(self.losses)

    @property
    def has_diverged(self) -> bool:
        """Whether the smoothed loss is far above the first one."""
        values = self.smoothed
        return bool(values) and values[-1] > DIVERGED * values[0]

    @property
    def lowest(self) -> float | None:
        """The learning rate at which the smoothed loss was lowest; None if it did not fall."""
        values = self.smoothed
        if not values:
            return None
        return self.rates[int(np.argmin(values))] if min(values) < values[0] * (1 - LEAST_FALL) else None

    @property
    def suggestion(self) -> float | None:
        """A learning rate to try, of two digits; None if the loss did not fall."""
        return None if self.lowest is None else float(f"{self.lowest / SAFETY:.1e}")


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving average of losses, without the bias of its start."""
    averages = itertools.accumulate(losses, lambda mean, loss: SMOOTHING * mean + (1 - SMOOTHING) * loss, initial=0.0)
    return [average / (1 - SMOOTHING**step) for step, average in enumerate(averages) if step]
