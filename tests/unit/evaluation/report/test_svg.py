"""Charts as elements of the page."""

from __future__ import annotations

from job.evaluation.report.svg import COLORS, inline

DRAWN = f"""<?xml version="1.0"?>
<!DOCTYPE svg>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="x" width="144pt" height="72pt" viewBox="0 0 144 72" version="1.1">
 <metadata>when</metadata>
 <defs>
  <style type="text/css">*{{stroke-linejoin: round}}</style>
 </defs>
 <g id="cell-0-1">
  <path id="m1" style="fill: {COLORS["blue"]}; stroke: {COLORS["ink"]}"/>
 </g>
 <g id="patch_2"><use xlink:href="#m1" clip-path="url(#p1)"/></g>
 <text style="font: 9px 'DejaVu Sans'; text-anchor: middle">cats</text>
</svg>
"""


def test_element() -> None:
    """Colours are the page's, fonts the reader's, ids the chart's own; what the page does not need is left out."""
    element = inline(DRAWN, key="confusion", title='the "matrix"', titles={"cell-0-1": "1 < 2"}, scale=2)

    assert element.startswith('<svg class="chart" role="img" aria-label="the &#34;matrix&#34;" viewBox="0 0 144 72"')
    assert 'style="width:288px;--least:158px"' in element
    assert '<g id="confusion-cell-0-1"><title>1 &lt; 2</title>' in element
    assert "fill: var(--blue); stroke: var(--ink)" in element
    assert 'href="#confusion-m1" clip-path="url(#confusion-p1)"' in element
    assert "font-size: 9px; text-anchor: middle" in element
    for left_out in ("<?xml", "DOCTYPE", "metadata", "linejoin", "patch_2", "DejaVu", "xlink:"):
        assert left_out not in element.split(">", 1)[1]
