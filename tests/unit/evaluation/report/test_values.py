"""Numbers and names on the page."""

from __future__ import annotations

import math

import pytest

from job.evaluation.report import values


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.97534, "97.5 %"), (0.9999, "99.9 %"), (1.0, "100 %"), (0.0004, "0.1 %"), (0.0, "0 %"), (1, "100 %")],
)
def test_percent(value: float, text: str) -> None:
    """Only what is all or nothing is shown as 100 % or 0 %."""
    assert text == values.percent(value).replace(values.SPACE, " ")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "0.5", True])
def test_missing(value: object) -> None:
    """What is no number is n/a with its reason, never 0 or nan."""
    for show in (values.share, values.decimal):
        assert values.Value("n/a", None, "no test images") == show(value, None, "no test images")
    assert ("n/a", values.UNRECORDED, True) == (*values.count(value)[::2], values.count(value).missing)


def test_numbers() -> None:
    """A number has its interval below, and is sorted by its exact value."""
    assert ("0.083", 0.0834, "0.060 to 0.110") == values.decimal(0.0834, [0.06, 0.11])
    assert ("50.0 %", 0.5, "40.0 % to 61.0 %") == tuple(
        part.replace(values.SPACE, " ") if isinstance(part, str) else part for part in values.share(0.5, [0.4, 0.61])
    )
    assert ("12,345", 12345.0) == values.count(12345)[:2]


@pytest.mark.parametrize(("seconds", "text"), [(0.42, "0.4 s"), (59, "59.0 s"), (90, "1.5 min"), (7200, "2.0 h")])
def test_duration(seconds: float, text: str) -> None:
    """A time has the unit that suits it."""
    assert text == values.duration(seconds).replace(values.SPACE, " ")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cats", "cats"),
        ("a\nb\x1b[1m\u202e\u3000c", "a b\ufffd[1m\ufffd c"),
        ("क्\u200dष", "क्\u200dष"),
        ("\udcff", "\ufffd"),
        ("x" * 90, "x" * 5 + "…" + "x" * 4),
    ],
)
def test_name(text: str, name: str) -> None:
    """A name is one short line without control characters; letters that join others stay."""
    assert name == values.name(text, 10)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (True, "true"), (1e-05, "1e-05"), ("", "empty"), ([], "none"), (["a", 1], "a, 1"), (7, "7")],
)
def test_plain(value: object, text: str) -> None:
    """A JSON value is text."""
    assert text == values.plain(value)
