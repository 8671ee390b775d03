"""Makes a chart of matplotlib part of the page: its colours follow the page's, and its text the reader's fonts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Mapping

COLORS: Final = {
    "ink": "#1b1f24",
    "muted": "#5f6975",
    "line": "#d5dae0",
    "blue": "#2463c4",
    "orange": "#c4500f",
    "green": "#1f7a4d",
    "purple": "#7a45b8",
    "teal": "#0f7c8a",
    "pink": "#b8326f",
    "on": "#fefefe",
}
"""Variable of the page's style -> its light colour, with which matplotlib draws."""

LEAST: Final = 0.55
"""Part of its width below which a wide chart is scrolled instead of shrunk: its text would be too small to read."""

_NAMES = {color: name for name, color in COLORS.items()}
_COLOR = re.compile("|".join(COLORS.values()))
_ID = re.compile(r'(\bid="|url\(#|href="#)')
_GROUP = re.compile(r'<g id="(cell-[\d-]+)">')
_ROOT = re.compile(r'<svg [^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')


def inline(drawn: str, *, key: str, title: str, titles: Mapping[str, str], scale: float = 1.75) -> Markup:
    """Return an SVG file of matplotlib as an element of the page.

    Args:
        drawn: the file.
        key: distinguishes the chart's ids from those of others.
        title: what it shows, for people who do not see it.
        titles: id of a group -> the text that appears while the pointer is over it.
        scale: pixels on the screen for a point, at most; where the page is narrow, the chart shrinks with it.
    """
    body = drawn[drawn.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style [^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = _GROUP.sub(lambda match: f"{match[0]}<title>{escape(titles[match[1]])}</title>", body) if titles else body
    body = re.sub(r' id="(?:patch|text|line2d|axes|matplotlib\.axis|xtick|ytick|figure|legend)_\d+"', "", body)
    body = _ID.sub(rf"\g<1>{key}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = _COLOR.sub(lambda match: f"var(--{_NAMES[match[0]]})", body)
    body = re.sub(r"\n\s*", "\n", body)
    root = _ROOT.search(body)
    assert root is not None, "matplotlib writes a viewBox"
    width, height = float(root[1]), float(root[2])
    head = (
        f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {width:g} {height:g}" '
        f'style="width:{width * scale:.0f}px;--least:{width * scale * LEAST:.0f}px">'
    )
    return Markup(head + body[root.end() :].rstrip())  # noqa: S704  # matplotlib escapes the names in it
