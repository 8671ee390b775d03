"""What the charts show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import report_files
from matplotlib.figure import Figure

from job.evaluation.report import charts, drawings, process
from job.evaluation.report.files import Files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTORY = list(process.history(Files(report_files.two_labels().get)))


def draw(drawing: charts.Drawing) -> Axes:
    """Return the axes with the chart."""
    axes = Figure().subplots()
    with charts.style():
        drawing.draw(axes)
    return axes


def texts(axes: Axes) -> list[str]:
    """Return the texts inside the axes."""
    return [text.get_text() for text in axes.texts]


def test_curve() -> None:
    """Both stages are on one axis, with the boundary between them and the published epoch."""
    axes = draw(drawings.curve(HISTORY, "loss", "Loss", 19))
    lines: dict[Any, Any] = {line.get_label(): line for line in axes.lines}
    [boundary] = [line for line in axes.lines if list(line.get_xdata()) == [10.5, 10.5]]

    assert ["feature extraction", "fine tuning"] == texts(axes)
    assert boundary
    assert list(range(1, 21)) == list(lines["validation"].get_xdata())
    assert [19] == list(lines["published"].get_xdata())
    assert [HISTORY[18]["val_loss"]] == list(lines["published"].get_ydata())


def test_learning_rate() -> None:
    """It is drawn over both stages, on a logarithmic axis, where it changes within a stage: also by a rollback."""
    constant = [row | {"learning_rate": 1e-4 if row["stage"] == "feature_extraction" else 1e-5} for row in HISTORY]
    scheduled = [*constant[:-1], constant[-1] | {"learning_rate": 5e-6}]
    axes = draw(drawings.learning_rate(scheduled))

    assert [False, False, True] == [drawings.has_schedule(history) for history in (HISTORY, constant, scheduled)]
    assert "log" == axes.get_yscale()
    assert [row["learning_rate"] for row in scheduled] == list(axes.get_lines()[0].get_ydata())


@pytest.mark.parametrize("history", [HISTORY[:1], HISTORY[10:], HISTORY[:10]])
def test_curve_of_one_stage(history: list[dict[str, Any]]) -> None:
    """A run of one stage, or of one epoch, has no boundary."""
    axes = draw(drawings.curve(history, "accuracy", "Accuracy", None))

    assert 1 == len(texts(axes))
    assert 2 == len(axes.lines)


def test_constant_curve() -> None:
    """A loss that hardly changes is drawn as constant, and not magnified until its rounding fills the chart."""
    history = [row | {"loss": 0.693147, "val_loss": 0.693147 + 1e-8 * n} for n, row in enumerate(HISTORY)]
    low, high = draw(drawings.curve(history, "loss", "Loss", None)).get_ylim()

    assert low < 0.69
    assert high > 0.696


def test_confusion() -> None:
    """Rows sum to 100 %; counts are in the titles; a label without images has an empty row."""
    drawing = drawings.confusion(["a", "<b>", "c"], [[9, 1, 0], [0, 0, 0], [0, 2, 1]], str)

    assert ["90", "10", "66.7", "33.3"] == texts(draw(drawing))
    assert {"cell-0-0", "cell-0-1", "cell-2-1", "cell-2-2"} == drawing.titles.keys()
    assert "a predicted as <b>: 1 of 10 images (10.0 %)" == drawing.titles["cell-0-1"].replace("\u202f", " ")


def test_many_labels_have_no_numbers_in_the_cells() -> None:
    """Cells too small for a number have only their colour."""
    counts = [[int(i == j) for j in range(30)] for i in range(30)]
    axes = draw(drawings.confusion([f"label {n}" for n in range(30)], counts, str))

    assert ([], 30) == (texts(axes), len(axes.patches))


@pytest.mark.parametrize(("number", "named"), [(1, 1), (6, 6), (7, 3)])
def test_lines(number: int, named: int) -> None:
    """A few labels have a colour each; of more those with the smallest areas."""
    lines = [drawings.Line(f"label {n}", [0, 1], [0, 1], 1 - n / 10) for n in range(number)]
    axes = draw(drawings.lines(lines, str, ("x", "y"), key="roc", title="ROC"))
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]

    assert (number + 1, named) == (len(axes.lines), len(names))
    assert f"{1 - (number - 1) / 10:.3f} label {number - 1}" == names[0]


def test_calibration() -> None:
    """Bins have their accuracy, and their share of the images."""
    axes = draw(drawings.calibration([drawings.Bin(0.6, 0.5, 10), drawings.Bin(0.95, 1.0, 30)]))

    assert [0.25, 0.75] == [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]  # bars


def test_labels_in_pictures() -> None:
    """A picture has no reader's fonts: a label whose script is missing is shown by its number."""
    name = drawings.numbered(["cats", "狗", "قطة"])

    assert ["cats", "label 2", "قطة"] == [name(label) for label in ("cats", "狗", "قطة")]
    assert "a long name…a chart" != drawings.drawable("a long name of a label that is too long for a chart")
    assert drawings.LABEL == len(drawings.drawable("a long name of a label that is too long for a chart"))
