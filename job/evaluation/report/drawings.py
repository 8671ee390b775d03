"""What the charts of the report show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from job.evaluation.report import values
from job.evaluation.report.charts import Drawing, label_powers
from job.evaluation.report.svg import COLORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

SIZE: Final = (4.2, 3.0)
"""Inches of a chart."""

LABEL: Final = 22
"""Characters of a label in a chart."""

LETTER: Final = 0.083
"""Inches of a letter."""

LEAST_RANGE: Final = 0.01
"""Of a loss or an accuracy: a smaller one is shown as nearly constant."""

LINES: Final = 6
"""Labels that get a colour of their own."""

_CYCLE = tuple(COLORS[name] for name in ("blue", "orange", "green", "purple", "teal", "pink"))


class Line(NamedTuple):
    """A curve of one label.

    Attributes:
        label: its name.
        x: abscissas.
        y: ordinates, as many.
        area: below it; None: unknown.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    area: float | None


class Bin(NamedTuple):
    """A bin of the calibration.

    Attributes:
        confidence: mean probability of the predicted label.
        accuracy: fraction of the images that are predicted correctly.
        images: how many there are.
    """

    confidence: float
    accuracy: float
    images: int


def curve(history: Sequence[Mapping[str, Any]], name: str, title: str, kept_epoch: int | None) -> Drawing:
    """Return the curves of a quantity over both stages, with the boundary between them.

    Args:
        history: rows of history.csv.
        name: ``loss`` or ``accuracy``.
        title: of the chart.
        kept_epoch: the epoch, across both stages, whose weights are published.
    """

    def draw(axes: Axes) -> None:
        epochs: list[float] = [row["epoch_total"] for row in history]
        marker = "o" if len(history) <= 30 else ""
        for column, text, color in ((f"val_{name}", "validation", "blue"), (name, "training", "orange")):
            points = [row[column] for row in history]
            axes.plot(epochs, points, marker=marker, markersize=3.5, label=text, color=COLORS[color])
        _mark_stages(axes, history)
        if kept_epoch in epochs:
            height = history[epochs.index(kept_epoch)][f"val_{name}"]
            axes.plot(
                [kept_epoch],
                [height],
                marker="o",
                markersize=9,
                markerfacecolor="none",
                markeredgewidth=1.6,
                color=COLORS["ink"],
                linestyle="",
                label="published",
            )
        axes.set_xlabel("epoch, across both stages")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlim(0.5, max(epochs) + 0.5)
        low, high = axes.get_ylim()
        if high - low < LEAST_RANGE:
            axes.set_ylim((low + high - LEAST_RANGE) / 2, (low + high + LEAST_RANGE) / 2)
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        axes.legend(loc="best", fontsize=8.5)

    return Drawing(f"curve-{name}", title, SIZE, draw, title_pad=22.0)


def learning_rate(history: Sequence[Mapping[str, Any]]) -> Drawing:
    """Return the learning rate of each epoch's last step, on a logarithmic axis.

    Args:
        history: rows of history.csv.
    """

    def draw(axes: Axes) -> None:
        epochs: list[float] = [row["epoch_total"] for row in history]
        axes.plot(epochs, [row["learning_rate"] for row in history], marker="o", markersize=3.5, color=COLORS["blue"])
        _mark_stages(axes, history)
        axes.set_yscale("log")
        label_powers(axes.yaxis)
        axes.set_xlabel("epoch, across both stages")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_xlim(0.5, max(epochs) + 0.5)

    return Drawing("curve-learning-rate", "Learning rate", SIZE, draw, title_pad=22.0)


def has_schedule(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the learning rate changed within a stage. Runs of older versions have not recorded it."""
    rates = {(row["stage"], row.get("learning_rate")) for row in history}
    stages = [stage for stage, rate in rates if rate is not None and rate > 0]
    return len(stages) > len(set(stages))


def _mark_stages(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    stages = [row["stage"] for row in history]
    for stage in dict.fromkeys(stages):
        first = stages.index(stage)
        last = len(stages) - 1 - stages[::-1].index(stage)
        if first:
            axes.axvline(first + 0.5, color=COLORS["muted"], linestyle=(0, (4, 3)), linewidth=1.1)
        axes.text(
            (first + last) / 2 + 1,
            1.02,
            stage.replace("_", " "),
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=COLORS["muted"],
        )


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]], name: Callable[[str], str]) -> Drawing:
    """Return the confusion matrix: each row sums to 100 %.

    Args:
        labels: names, in the order of the rows and columns.
        counts: images by true and predicted label.
        name: returns how a label is written in the chart.
    """
    number = len(labels)
    cell = 0.95 if number <= 3 else 0.6 if number <= 8 else 0.42 if number <= 20 else 0.26
    text = LETTER * max(_width(name(label)) for label in labels)
    margins = (0.4 + text, 0.1, 0.3 + (text if number > 3 else 0.2), 0.1)
    size = (number * cell + margins[0] + margins[1], number * cell + margins[2] + margins[3])
    titles = {
        f"cell-{i}-{j}": f"{values.name(labels[i])} predicted as {values.name(labels[j])}: "
        f"{count:,} of {sum(row):,} images ({values.percent(count / sum(row))})"
        for i, row in enumerate(counts)
        for j, count in enumerate(row)
        if count
    }

    def draw(axes: Axes) -> None:
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count:
                    _draw_cell(axes, i, j, count / sum(row), number)
        texts = [name(label) for label in labels]
        axes.set_xticks(range(number), texts, rotation=90 if number > 3 else 0)
        axes.set_yticks(range(number), texts)
        for text in axes.get_xticklabels():
            if number > 3:
                text.set(ha="right", va="center", rotation_mode="anchor")
        axes.tick_params(length=0, labelsize=9 if number <= 20 else 7.5, labelcolor=COLORS["ink"])
        axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), aspect="equal")
        axes.set_xlabel("predicted label")
        axes.set_ylabel("true label")
        axes.set_xticks([edge + 0.5 for edge in range(number - 1)], minor=True)
        axes.set_yticks([edge + 0.5 for edge in range(number - 1)], minor=True)
        axes.tick_params(which="minor", length=0)
        axes.grid(visible=False)
        axes.grid(visible=True, which="minor")
        for edge in axes.spines.values():
            edge.set_visible(True)

    return Drawing("confusion", "Confusion matrix", size, draw, titles, margins=margins)


def _draw_cell(axes: Axes, i: int, j: int, share: float, number: int) -> None:
    color = COLORS["blue" if i == j else "orange"]
    square = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=color, alpha=0.08 + 0.92 * share, linewidth=0)
    square.set_gid(f"cell-{i}-{j}")
    axes.add_artist(square)  # not add_patch, which takes longest: it adapts the limits, which are given
    if number <= 20:
        digits = f"{100 * share:.1f}".removesuffix(".0") if number <= 8 else f"{100 * share:.0f}"
        axes.text(
            j,
            i,
            digits,
            ha="center",
            va="center",
            color=COLORS["on" if share > 0.75 else "ink"],
            fontsize=11 if number <= 3 else 9 if number <= 8 else 7.5,
        ).set_gid(f"text-{i}-{j}")


def lines(
    drawn: Sequence[Line], name: Callable[[str], str], axes_names: tuple[str, str], *, key: str, title: str
) -> Drawing:
    """Return a curve for each label; of many labels those with the smallest areas have colours.

    Args:
        drawn: the curves.
        name: returns how a label is written in the chart.
        axes_names: of x and y.
        key: of the chart: ``roc``, with what guessing would give, or ``pr``.
        title: of the chart.
    """
    order = sorted(drawn, key=lambda line: (line.area is None, line.area or 0.0))
    colored = order if len(order) <= LINES else order[: LINES // 2]

    def draw(axes: Axes) -> None:
        if key == "roc":
            axes.plot([0, 1], [0, 1], color=COLORS["muted"], linestyle=(0, (4, 3)), linewidth=1)
        for line in order[len(colored) :]:
            axes.plot(line.x, line.y, color=COLORS["muted"], alpha=0.3, linewidth=0.8)
        for line, color in zip(colored, _CYCLE, strict=False):
            area = "" if line.area is None else f"{line.area:.3f} "
            marker = "o" if len(line.x) < 3 else ""
            axes.plot(line.x, line.y, marker=marker, color=color, label=f"{area}{name(line.label)}")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=axes_names[0], ylabel=axes_names[1])
        if colored:
            axes.legend(loc="lower right" if key == "roc" else "lower left", fontsize=8.5)

    return Drawing(key, title, (3.6, 3.3), draw)


def calibration(bins: Sequence[Bin]) -> Drawing:
    """Return the accuracy by the probability that the model gave to its answer."""
    images = sum(one.images for one in bins) or 1

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=COLORS["muted"], linestyle=(0, (4, 3)), linewidth=1, label="perfect")
        axes.bar(
            [one.confidence for one in bins],
            [one.images / images for one in bins],
            width=0.03,
            color=COLORS["muted"],
            alpha=0.35,
            label="share of images",
        )
        axes.plot(
            [one.confidence for one in bins],
            [one.accuracy for one in bins],
            marker="o",
            markersize=4.5,
            color=COLORS["blue"],
            label="model",
        )
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability of the answer", ylabel="fraction correct")
        axes.legend(loc="upper left", fontsize=8.5)

    return Drawing("calibration", "Calibration", (3.6, 3.3), draw)


def drawable(label: str) -> str:
    """Return a label as the page shows it in a chart: short, and drawn with the reader's fonts."""
    return values.name(label, LABEL)


def numbered(labels: Sequence[str]) -> Callable[[str], str]:
    """Return how a picture without the reader's fonts writes a label: by its number where its script is missing."""
    known = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    numbers = {label: f"label {number}" for number, label in enumerate(labels, 1)}
    return lambda label: drawable(label) if all(ord(c) in known for c in label) else numbers.get(label, "?")


def _width(text: str) -> float:
    """Return about how many Latin letters a text is wide."""
    return sum(2.0 if ord(c) >= 0x2E80 else 1.0 for c in text)
