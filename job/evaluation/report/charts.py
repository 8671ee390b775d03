"""Writes a chart for the page (SVG) and for slides (PNG), in the style of the report, with matplotlib."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from job.evaluation.report.svg import COLORS, inline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

DPI: Final = 160
"""Of the PNG files."""

_STYLE: Final[Mapping[Any, Any]] = {
    "axes.edgecolor": COLORS["line"],
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": COLORS["ink"],
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",  # which matplotlib brings along
    "font.size": 9,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.labelcolor": COLORS["ink"],
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "finetune",
    "text.color": COLORS["ink"],
    "text.parse_math": False,  # a label may contain dollar signs
    "xtick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.color": COLORS["line"],
    "ytick.labelcolor": COLORS["muted"],
}


class Drawing(NamedTuple):
    """A chart that can be drawn.

    Attributes:
        key: of its ids, and the name of its PNG file.
        title: what it shows.
        size: inches.
        draw: draws onto axes.
        titles: id of a group -> its text.
        title_pad: points between the axes and a title.
        margins: inches around the axes: left, right, below and above.
    """

    key: str
    title: str
    size: tuple[float, float]
    draw: Callable[[Axes], None]
    titles: Mapping[str, str] = {}
    title_pad: float = 8.0
    margins: tuple[float, float, float, float] = (0.58, 0.12, 0.5, 0.24)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw with the style of the report, independent of this machine's settings of matplotlib."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of other scripts: the page is drawn with the reader's fonts
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def label_powers(axis: Axis) -> None:
    """Label a logarithmic axis with plain text, such as 1e-05: this style does not draw mathematical text."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def page_element(drawing: Drawing) -> Markup:
    """Return a chart for the page."""
    figure = _figure([drawing], has_titles=False)
    drawing.draw(figure.axes[0])
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return inline(file.getvalue(), key=drawing.key, title=drawing.title, titles=drawing.titles)


def png(drawings: Sequence[Drawing]) -> bytes:
    """Return charts side by side as a picture on white."""
    figure = _figure(drawings, has_titles=True)
    for axes, drawing in zip(figure.axes, drawings, strict=True):
        drawing.draw(axes)
        axes.set_title(drawing.title, pad=drawing.title_pad)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _figure(drawings: Sequence[Drawing], *, has_titles: bool) -> Figure:
    """Return a figure with axes side by side. Its margins are given: measuring all texts takes longer than to draw."""
    width = sum(drawing.size[0] for drawing in drawings)
    height = max(drawing.size[1] for drawing in drawings) + 0.3 * has_titles
    figure = Figure(figsize=(width, height), facecolor="white" if has_titles else "none")
    start = 0.0
    for drawing in drawings:
        left, right, bottom, top = drawing.margins
        box = (start + left, bottom, drawing.size[0] - left - right, height - bottom - top - 0.3 * has_titles)
        figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        start += drawing.size[0]
    return figure
