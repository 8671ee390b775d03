"""The chart of a learning-rate range test: loss over learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.evaluation.report.charts import Drawing, label_powers
from job.evaluation.report.svg import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from job.training.range_test import Curve


def curve(measured: Curve) -> Drawing:
    """Return the loss over the learning rate, with the rate of the settings and the suggested one."""

    def draw(axes: Axes) -> None:
        rates, smoothed = measured.rates, measured.smoothed
        axes.plot(rates, measured.losses, color=COLORS["muted"], alpha=0.35, linewidth=0.9, label="each step")
        axes.plot(rates, smoothed, color=COLORS["blue"], label="smoothed")
        axes.axvline(measured.configured, color=COLORS["muted"], linestyle=(0, (4, 3)), linewidth=1.1, label="settings")
        if measured.suggestion is not None:
            axes.axvline(measured.suggestion, color=COLORS["orange"], linewidth=1.4, label="suggestion")
        axes.set_xscale("log")
        label_powers(axes.xaxis)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        if smoothed:
            # note: a loss that diverged would flatten the part that matters
            margin = 0.3 * smoothed[0]
            axes.set_ylim(min(smoothed) - margin, smoothed[0] + 2 * margin)
        axes.legend(loc="best", fontsize=8.5)

    stage = measured.stage
    return Drawing(f"learning-rate-{stage}", stage.replace("_", " "), (4.2, 3.0), draw)
