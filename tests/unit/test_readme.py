"""The README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links() -> None:
    """Every file that the README links to is there."""
    links = [link for link in re.findall(r"\[[^\]\"]+\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [] == [link for link in links if not (ROOT / link).exists()]


def test_reading_order() -> None:
    """The reading order names modules that exist."""
    modules = re.findall(r"`(job/[a-z_/]+(?:\.py)?)`", README)
    assert len(modules) > 10
    assert [] == [module for module in modules if not (ROOT / module).exists()]


def test_make_targets() -> None:
    """Every make target that the README names exists."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z0-9-]+)", README)) <= targets
