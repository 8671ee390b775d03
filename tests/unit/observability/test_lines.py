"""Lines on a terminal: broken between words, and repeated warnings counted."""

from __future__ import annotations

import pytest
import structlog
from rich.text import Text

from job.observability.lines import INDENT, REPEATS, RepeatLimit, wrapped


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("00:00:00 a line that fits", ["00:00:00 a line that fits"]),
        ("00:00:00 " + "x" * 21, ["00:00:00 " + "x" * 21]),
        ("00:00:00 one two three four five", ["00:00:00 one two three four", "five"]),
        ("00:00:00 one  two    " + "x" * 15 + " three", ["00:00:00 one  two", "x" * 15 + " three"]),
        ("00:00:00 one " + "x" * 40 + " two", ["00:00:00 one", "x" * 40, "two"]),
        ("00:00:00 漢字漢字漢字漢字 漢字漢", ["00:00:00 漢字漢字漢字漢字", "漢字漢"]),
    ],
)
def test_wrapped(line: str, parts: list[str]) -> None:
    """A line is broken between words, its later parts indented; a word that is wider than the terminal stays whole."""
    expected = f"\n{' ' * INDENT}".join(parts)

    assert expected == wrapped(Text(line), 30).plain


def test_wrapped_keeps_styles() -> None:
    """Colours stay on their words."""
    line = Text.from_ansi("00:00:00 one two three \x1b[31mfour five\x1b[0m")

    [style] = wrapped(line, 30).spans[-1:]

    assert "five" == wrapped(line, 30).plain[style.start : style.end].strip()


def test_lines_of_a_traceback_are_left_as_they_are() -> None:
    """A text of several lines is not touched."""
    text = f"Traceback\n  File {'x' * 40}"

    assert text == wrapped(Text(text), 30).plain


def shown(warnings: list[tuple[str, str]]) -> list[dict[str, object]]:
    """Return the lines that are left of (level, event)."""
    limit, lines = RepeatLimit(), []
    for level, event in warnings:
        try:
            lines.append(limit(None, level, {"event": event}))
        except structlog.DropEvent:
            continue
    return lines


@pytest.fixture
def counts() -> list[dict[str, object]]:
    """Return the lines that the limit itself logs."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def test_repeated_warnings_are_counted(counts: list[dict[str, object]]) -> None:
    """The first warnings of a name are shown; their number follows when the log continues with another line."""
    repeated = [("warning", "image.quarantined")] * 300

    lines = shown([*repeated, ("info", "next"), *repeated[: REPEATS + 1], ("warning", "other")])

    expected = ["image.quarantined"] * REPEATS
    assert [*expected, "next", *expected, "other"] == [line["event"] for line in lines]
    expected_counts = [("image.quarantined", 300 - REPEATS), ("image.quarantined", 1)]
    assert expected_counts == [(line["event"], line["more"]) for line in counts]


def test_other_lines_are_not_limited(counts: list[dict[str, object]]) -> None:
    """Lines at info, and a few warnings of a name, are all shown."""
    lines = [*[("info", "epoch")] * 20, *[("warning", "a"), ("warning", "b")] * 20, *[("warning", "c")] * REPEATS]

    assert [event for _, event in lines] == [line["event"] for line in shown(lines)]
    assert [] == counts
