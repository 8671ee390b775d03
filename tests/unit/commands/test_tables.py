"""Tables of text, and the values of flags."""

from __future__ import annotations

import datetime as dt

import pytest

from job.commands import tables
from job.errors import SettingsError

NOW = dt.datetime(2026, 6, 30, 12, tzinfo=dt.UTC)


def test_lines() -> None:
    """Columns are as wide as their longest cell; an empty cell is a dash."""
    assert ["A    BB", "a    -", "bbb  c"] == list(tables.lines(("A", "BB"), [["a", ""], ["bbb", "c"]]))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (19_600, "19.6 kB"),
        (999_700, "1 MB"),
        (4.2e11, "420 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """A size has three digits and a unit."""
    assert text == tables.size_of(size)


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "true"), (0.123456, "0.1235"), ([1, 0.5], "1, 0.5"), ("a", "a"), (1, "1")]
)
def test_values(value: object, text: str) -> None:
    """JSON values are short texts."""
    assert text == tables.value_of(value)


def test_other_cells() -> None:
    """Times are in UTC, a long text keeps its end, and numbers have their noun."""
    zone = dt.timezone(dt.timedelta(hours=2))
    assert "2026-06-30 12:00" == tables.time_of(dt.datetime(2026, 6, 30, 14, tzinfo=zone))
    assert "" == tables.time_of(None)
    assert ("…rs/v2", "short") == (tables.shortened("gs://b/flowers/v2", 6), tables.shortened("short", 5))
    assert ("1 run", "1,000 runs") == (tables.counted(1, "run"), tables.counted(1000, "run"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90m", {"minutes": 90}), ("12h", {"hours": 12}), ("30d", {"days": 30}), ("2w", {"weeks": 2})],
)
def test_ages(text: str, expected: dict[str, int]) -> None:
    """An age is a number with a unit."""
    assert dt.timedelta(**expected) == tables.age("--older-than", text)


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "1.5d", "30 d", "3y", "999999d"])
def test_no_age(text: str) -> None:
    """What is no age is exit code 2, with flag and value."""
    with pytest.raises(SettingsError) as caught:
        tables.age("--older-than", text)
    assert f"--older-than {text!r}" in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-06-01", dt.datetime(2026, 6, 1, tzinfo=dt.UTC)),
        ("2026-06-01T10:00:00+02:00", dt.datetime(2026, 6, 1, 8, tzinfo=dt.UTC)),
        ("7d", NOW - dt.timedelta(days=7)),
    ],
)
def test_since(text: str, expected: dt.datetime) -> None:
    """A beginning is a date, a time or an age."""
    assert expected == tables.since("--since", text, NOW)


@pytest.mark.parametrize("text", ["", "monday", "2026-13-01"])
def test_no_beginning(text: str) -> None:
    """What is neither is exit code 2, with flag and value."""
    with pytest.raises(SettingsError) as caught:
        tables.since("--since", text, NOW)
    assert f"--since {text!r}" in caught.value.message


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "x", "²"])
def test_no_whole_number(text: str) -> None:
    """What is no whole number from 1 is exit code 2, with flag and value."""
    with pytest.raises(SettingsError) as caught:
        tables.whole_number("--keep", text)
    assert f"--keep {text!r}" in caught.value.message
    assert 12 == tables.whole_number("--keep", "12")
