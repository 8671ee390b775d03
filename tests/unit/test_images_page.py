"""docs/images.md says what becomes of every odd image."""

from __future__ import annotations

from pathlib import Path

from odd_images import ALL, WHAT

from job.data.image_header import Header


def outcome(name: str) -> str:
    """Return the outcome of a kind as the page has it."""
    verdict = ALL[name].verdict
    if not isinstance(verdict, Header):
        return f"`{verdict}`"
    if ALL[name].warning:
        return "used, named in the log; or `damaged`"
    return "used" if verdict.orientation == 1 else "used, upright"


def test_page_has_every_kind_with_its_outcome() -> None:
    """Each kind has one row with the verdict that the tests of the header gate and of the decoder hold."""
    page = (Path(__file__).parents[2] / "docs/images.md").read_text("utf-8")

    rows = page.partition("| image | outcome |\n|---|---|\n")[2].splitlines()
    assert ALL.keys() == WHAT.keys()
    assert sorted(f"| {WHAT[name]} | {outcome(name)} |" for name in ALL) == sorted(rows)
