"""The page: a pure function of the run's files."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import report_files
from paths import ROOT

from job.config.settings import ReportSettings
from job.errors import DataError
from job.evaluation.report import page
from job.evaluation.report.page import MAX_BYTES, PAGE, render

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURES = {"report/curves.png", "report/roc.png", "report/calibration.png"}


class Elements(HTMLParser):
    """Collects the tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Remember text."""
        self.text += data


def without_charts() -> dict[str, bytes]:
    """Return the files of a run from which no chart is drawn, which takes most of the time."""
    charts = ("metrics/curves.json", "metrics/history.csv")
    files = {name: data for name, data in report_files.two_labels().items() if name not in charts}
    metrics = json.loads(files["metrics/metrics.json"])
    metrics["validation"]["confusion"] = None
    return files | {"metrics/metrics.json": report_files.encode(metrics)}


def page_of(files: dict[str, bytes], settings: ReportSettings | None = None) -> str:
    """Return the page of a run."""
    return render(files.get, settings)[PAGE].decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "extra", "sections"),
    [
        (report_files.two_labels, {"report/confusion.png"}, 10),
        (report_files.many_labels, set(), 10),
        (report_files.failed_gate, {"report/confusion.png"}, 10),
        (report_files.older_run, {"report/roc.png", "report/calibration.png"}, 5),
        (dict, PICTURES, 1),
    ],
)
def test_pages(make: Callable[[], dict[str, bytes]], extra: set[str], sections: int) -> None:
    """Every run has a page, shorter where files are absent; nothing on it is nan or undefined."""
    found = render(make().get)
    elements = Elements(found[PAGE].decode())

    assert {PAGE} | PICTURES ^ extra == found.keys()
    assert sections == sum(tag == "section" for tag, _ in elements.tags)
    assert len(found[PAGE]) <= MAX_BYTES
    assert not re.search(r"\b(nan|None|inf|Undefined)\b", elements.text)


@pytest.mark.slow
def test_same_bytes() -> None:
    """The same files make the same bytes, in any process."""
    program = (
        "import hashlib, report_files\nfrom job.evaluation.report.page import render\n"
        "print({n: hashlib.sha256(b).hexdigest() for n, b in render(report_files.some_labels().get).items()})"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))), "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    ]

    assert "report/confusion.png" in found[0]
    assert found[0] == found[1]


def test_names_are_escaped() -> None:
    """A label with any content is text in HTML, in attributes and in charts."""
    label = '<img src=x onerror="alert(1)">'
    text = page_of(report_files.files((label, "$x$</script>")))

    assert label not in text
    assert html.escape(label, quote=False) in text or html.escape(label).replace("&quot;", "&#34;") in text
    assert 1 == text.count("</script>")


@pytest.mark.slow
def test_one_file() -> None:
    """The page loads nothing: its policy forbids it, and there is no address outside of it."""
    elements = Elements(page_of(report_files.two_labels()))
    [policy] = [
        attributes["content"] or ""
        for tag, attributes in elements.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    addresses = {
        attributes[name] or ""
        for _, attributes in elements.tags
        for name in ("src", "href", "action", "data")
        if name in attributes
    }

    assert policy.startswith("default-src 'none'")
    assert all(address.startswith(("#", "data:")) for address in addresses), addresses


def test_too_many_pictures() -> None:
    """A page never exceeds 3 MB: it has fewer pictures, and says so."""
    files = without_charts()
    gallery = json.loads(files["report/gallery.json"])
    gallery["mistakes"] = gallery["mistakes"][:1] * 200
    files["report/gallery.json"] = report_files.encode(gallery)

    limited, few = page_of(files, ReportSettings(max_images=1000)), page_of(files, ReportSettings(max_images=2))

    assert len(limited.encode()) <= MAX_BYTES
    assert re.search(r"\d+ of 204 pictures are shown: the page is limited to 3 MB", limited)
    assert "4 of 204 pictures are shown: report.max_images limits them" in few
    assert 4 + 2 == few.count("data:image/jpeg")  # two mistakes, each with its heatmap, and two suspected errors


def test_no_pictures() -> None:
    """Without pictures the section is left out; what is no JPEG in base64 is not shown."""
    files = without_charts()
    assert 'id="mistakes"' not in page_of(files, ReportSettings(max_images=0))

    gallery = {"mistakes": [{"uri": "a", "label": "b", "picture": '"><script>'}]}
    text = page_of(files | {"report/gallery.json": report_files.encode(gallery)})
    assert 'id="mistakes"' in text
    assert "data:image" not in text


def test_settings_are_those_of_the_run() -> None:
    """Unless others are given, the page has the run's settings."""
    assert "2.48 an hour" in page_of(without_charts())
    assert "cost of the GPU" not in page_of(without_charts(), ReportSettings())
    assert ReportSettings() == page.recorded_settings({}.get)


@pytest.mark.parametrize("data", [b"{", b'{"validation": {"confusion": {"labels": ["a"]}}}', b'{"ablation": [1]}'])
def test_unreadable_files(data: bytes) -> None:
    """Damaged files end with exit code 3."""
    with pytest.raises(DataError):
        render({"metrics/metrics.json": data}.get)


def test_augmented_images() -> None:
    """Training images with augmentation have a section of their own; without pictures on the page they have none."""
    files = without_charts()
    gallery = json.loads(files["report/gallery.json"]) | {"augmented": {"picture": report_files.jpeg(9), "uris": []}}
    files["report/gallery.json"] = report_files.encode(gallery)

    shown, without = (page_of(files, ReportSettings(max_images=limit)) for limit in (24, 0))

    assert ('id="augmentation"' in shown, 'id="augmentation"' in without) == (True, False)
    assert (
        f'class="sheet" alt="training images with augmentation" src="data:image/jpeg;base64,{report_files.jpeg(9)}'
        in shown
    )
