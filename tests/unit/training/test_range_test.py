"""The curve of a learning-rate range test, and what it suggests."""

from __future__ import annotations

import numpy as np
import pytest

from job.training.range_test import Curve, smoothed

RATES = [float(rate) for rate in np.geomspace(1e-7, 1.0, 71)]


def curve(losses: list[float]) -> Curve:
    """Return a test with these losses, ten steps for a power of ten."""
    return Curve("fine_tuning", 1e-5, RATES[: len(losses)], losses, diverged=False)


def test_smoothed_is_an_average_without_bias() -> None:
    """A constant loss stays what it is, from the first step on; a later one is a weighted mean of those before."""
    assert [2.0] * 5 == pytest.approx(smoothed([2.0] * 5))
    assert [1.0, (0.9 * 1 + 3) / 1.9] == pytest.approx(smoothed([1.0, 3.0]))
    assert [] == smoothed([])


def test_suggestion() -> None:
    """It is a tenth of the rate at which the smoothed loss was lowest, before the loss rises again."""
    losses = [0.7] * 30 + [0.7 * 0.93**n for n in range(25)] + [0.2 * 1.5**n for n in range(10)]
    found = curve(losses)

    assert RATES[int(np.argmin(found.smoothed))] == found.lowest
    assert 1e-2 < found.lowest < 0.2
    assert found.suggestion == pytest.approx(found.lowest / 10, rel=0.05)


@pytest.mark.parametrize("losses", [[], [0.7], [0.7] * 40, [0.7 + 0.01 * n for n in range(40)], [0.7] * 39 + [0.4]])
def test_no_suggestion_where_the_loss_does_not_fall(losses: list[float]) -> None:
    """Noise of a few per cent is no fall."""
    assert curve(losses).lowest is None
    assert curve(losses).suggestion is None


def test_divergence() -> None:
    """A smoothed loss of several times the lowest one ends the test; one outlier does not."""
    assert curve([0.5] * 10 + [10.0] * 3).has_diverged
    assert not curve([0.5, 0.1, 0.01, 0.01, 0.4]).has_diverged
    assert not curve([0.5] * 10 + [2.0]).has_diverged
    assert not curve([]).has_diverged
