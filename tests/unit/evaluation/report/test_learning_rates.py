"""The chart of a learning-rate range test."""

from __future__ import annotations

import pytest

from job.evaluation.report import charts, learning_rates
from job.training.range_test import Curve

FALLING = [1.0 * 0.9**n for n in range(40)]


@pytest.mark.parametrize(
    ("losses", "labels"),
    [
        (FALLING, ["each step", "smoothed", "settings", "suggestion"]),
        ([1.0] * 40, ["each step", "smoothed", "settings"]),
        ([], ["each step", "smoothed", "settings"]),
    ],
)
def test_lines(losses: list[float], labels: list[str]) -> None:
    """It has the losses, and a line for the rate of the settings and for the suggestion, if there is one."""
    rates = [1e-7 * 1.3**n for n in range(len(losses))]
    drawing = learning_rates.curve(Curve("fine_tuning", 1e-5, rates, losses, diverged=True))
    with charts.style():
        figure = charts._figure([drawing], has_titles=True)
        [axes] = figure.axes
        drawing.draw(axes)

    assert labels == [line.get_label() for line in axes.get_lines()]
    assert ("log", "fine tuning") == (axes.get_xscale(), drawing.title)


def test_diverged_loss_does_not_flatten_the_chart() -> None:
    """The axis ends above the first losses, not at those of the divergence."""
    rates = [1e-7 * 1.3**n for n in range(41)]
    drawing = learning_rates.curve(Curve("fine_tuning", 1e-5, rates, [*FALLING, 1e6], diverged=True))
    with charts.style():
        figure = charts._figure([drawing], has_titles=True)
        drawing.draw(figure.axes[0])

    assert figure.axes[0].get_ylim()[1] < 2
