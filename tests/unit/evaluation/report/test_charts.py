"""Drawing with matplotlib, in the report's style, for the page and for slides."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import matplotlib as mpl
from PIL import Image

from job.evaluation.report import charts
from job.evaluation.report.charts import DPI, Drawing

PLOT = Drawing("plot", "A plot", (3.0, 2.0), lambda axes: axes.set(title="$a$ قطة", xlabel="狗"))


def test_style_is_the_reports_own() -> None:
    """Settings of matplotlib on this machine change nothing and stay as they are; a missing glyph is no warning."""
    with charts.style():
        expected = charts.png([PLOT])
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}), warnings.catch_warnings():
        warnings.simplefilter("error")
        with charts.style():
            found = charts.png([PLOT])
        after = mpl.rcParams["font.size"]

    assert expected == found
    assert 30 == after


def test_same_bytes() -> None:
    """A chart drawn twice is the same; its text is text, in any script, and a dollar sign starts no formula."""
    with charts.style():
        one, other = charts.page_element(PLOT), charts.page_element(PLOT)

    assert one == other
    assert ">$a$ قطة</text>" in one
    assert ">狗</text>" in one


def test_pictures_side_by_side() -> None:
    """A PNG has its charts side by side, with their titles, and no date."""
    with charts.style():
        picture = Image.open(io.BytesIO(charts.png([PLOT, PLOT])))

    assert (6 * DPI, round(2.3 * DPI)) == picture.size
    assert {"dpi"} >= picture.info.keys()
    assert (255, 255, 255) == picture.convert("RGB").getpixel((1, 1))


def test_no_state_is_shared() -> None:
    """pyplot, which keeps every figure, is not imported."""
    program = "import sys; import job.evaluation.report.page; sys.exit('matplotlib.pyplot' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", program], check=False).returncode
