"""The report in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import browser as browsers
import prerequisites
import pytest
import report_files

from job.evaluation.report.page import render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from browser import Browser

RUNS: dict[str, Callable[[], dict[str, bytes]]] = {
    "two labels": report_files.two_labels,
    "some labels": report_files.some_labels,
    "many labels": report_files.many_labels,
    "failed gate": report_files.failed_gate,
    "older run": report_files.older_run,
}

OVERFLOW = """[...document.querySelectorAll("body *")]
    .filter((element) => !element.closest(".scroll, svg"))
    .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map((element) => element.outerHTML.slice(0, 200))"""
"""The elements that reach over the window's edge, without those that are scrolled on their own."""

TEXTS = (
    "p, li, .source, .note, .muted, .na, .wrong, a, dt, dd, th, td, small, figcaption, svg text:not([id*='-text-'] *)"
)
"""Texts on one colour: those in the cells of the matrix are on the cell's own."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a running browser."""
    if reason := prerequisites.reason_to_skip("Chromium"):
        pytest.skip(reason)
    with browsers.running() as running:
        yield running


@pytest.fixture(scope="module", params=RUNS)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a made-up run."""
    path: Path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_bytes(render(RUNS[request.param]().get)["report/index.html"])
    return path


@pytest.mark.parametrize("width", [360, 800, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page(browser: Browser, page: Path, width: int, scheme: Literal["light", "dark"]) -> None:
    """The page has no error, requests nothing, fits the window, and its text stands out from what is behind it."""
    seen = browser.open(page, width=width, scheme=scheme)

    assert ([], []) == seen
    assert width == browser.evaluate("document.documentElement.scrollWidth")
    assert [] == browser.evaluate(OVERFLOW)
    assert browser.contrast(TEXTS) >= 4.5


def test_sorting(browser: Browser, tmp_path: Path) -> None:
    """A click on a column sorts its table, a second one the other way round; missing numbers stay last."""
    path = tmp_path / "index.html"
    path.write_bytes(render(report_files.some_labels().get)["report/index.html"])
    browser.open(path, width=1600, scheme="light")
    cells = "[...document.querySelectorAll('#labels tbody tr')].map((row) => row.cells[2 + 1].textContent)"
    click = "document.querySelectorAll('#labels th button')[3].click()"

    browser.evaluate(click)
    rising = browser.evaluate(cells)
    browser.evaluate(click)
    falling = browser.evaluate(cells)

    assert "n/a" == rising[-1] == falling[-1]
    numbers = [float(text.split("\u202f")[0]) for text in rising[:-1]]
    assert sorted(numbers) == numbers
    assert sorted(numbers, reverse=True) == [float(text.split("\u202f")[0]) for text in falling[:-1]]


def test_counts_of_the_matrix(browser: Browser, tmp_path: Path) -> None:
    """Each cell of the confusion matrix has its count as the text that appears under the pointer."""
    path = tmp_path / "index.html"
    path.write_bytes(render(report_files.two_labels().get)["report/index.html"])
    browser.open(path, width=1600, scheme="light")

    title = browser.evaluate("document.querySelector('#confusion-cell-1-0 title').textContent")

    assert "dogs predicted as cats: 2 of 61 images (3.3 %)" == title.replace("\u202f", " ")


def test_print(browser: Browser, tmp_path: Path) -> None:
    """On paper the page is light, tables are whole, and nothing is cut off."""
    path = tmp_path / "index.html"
    path.write_bytes(render(report_files.many_labels().get)["report/index.html"])
    browser.open(path, width=800, scheme="dark")
    sheets = browser.pages()
    browser.call("Emulation.setEmulatedMedia", media="print")

    try:
        assert "rgb(255, 255, 255)" == browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert "none" == browser.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight")
        assert sheets >= 8  # 120 labels in two tables take sheets of their own
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
