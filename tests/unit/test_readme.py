"""The README and the pages under docs/ say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown viewers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every file and every heading that a page links to is there."""
    links = re.findall(r"\[[^\]\"]+\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_is_short() -> None:
    """A newcomer reads it to the end; everything else is in docs/."""
    assert len(README) <= 9000


def test_reading_order() -> None:
    """The reading order names modules that exist."""
    modules = re.findall(r"`(job/[a-z_/]+(?:\.py)?)`", README)
    assert len(modules) > 10
    assert [] == [module for module in modules if not (ROOT / module).exists()]


def test_make_targets() -> None:
    """Every make target that the README names exists."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?<!install )\bmake ([a-z0-9-]+)\b", README))
    assert {"demo", "test", "unit"} <= named
    assert named <= targets


def test_settings_that_are_named() -> None:
    """Every setting that the README shows exists, with the default that it gives."""
    defaults = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^`|]*)`? \|", README, re.MULTILINE))
    table = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for name, default in defaults.items():
        found = re.search(rf"^\| `{re.escape(name)}` \| `([^`]*)` \|", table, re.MULTILINE)
        assert found, name
        if default.strip() not in ("", "the demo's pictures"):
            assert default.strip() == found[1].strip('"').removesuffix(".0"), name
