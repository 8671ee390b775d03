"""Numbers and names as the report shows them. What is missing is "n/a" with the reason, never a number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SPACE = "\u202f"
"""Narrow and not broken: between a number and its unit."""

UNRECORDED = "the run has not recorded it"

_JOINERS = "\u200c\u200d"
"""Shape letters of Persian and of Indian scripts, and emoji."""

_UNITS = ((3600, "h"), (60, "min"))


class Value(NamedTuple):
    """A number in a table.

    Attributes:
        text: as shown.
        sort: the number by which a column is sorted; None: it is missing.
        note: its interval, or why it is missing.
    """

    text: str
    sort: float | None
    note: str = ""

    @property
    def missing(self) -> bool:
        """Whether there is no number."""
        return self.sort is None


def missing(reason: str | None) -> Value:
    """Return the value that is not there."""
    return Value("n/a", None, reason or UNRECORDED)


def is_number(value: object) -> bool:
    """Return whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def share(value: Any, interval: Sequence[float] | None = None, reason: str | None = None) -> Value:
    """Return a fraction as a percentage, with its interval."""
    if not is_number(value):
        return missing(reason)
    note = f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""
    return Value(percent(value), float(value), note)


def decimal(value: Any, interval: Sequence[float] | None = None, reason: str | None = None) -> Value:
    """Return a number with three decimals, with its interval."""
    if not is_number(value):
        return missing(reason)
    note = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    return Value(f"{value:.3f}", float(value), note)


def count(value: Any, reason: str | None = None) -> Value:
    """Return a number of things."""
    return Value(f"{value:,}", float(value)) if is_number(value) else missing(reason)


def percent(value: float) -> str:
    """Return a fraction as a percentage; only 0 and 1 themselves are shown as such."""
    digits = f"{100 * min(max(value, 0.001), 0.999):.1f}" if 0 < value < 1 else f"{100 * value:.0f}"
    return f"{digits}{SPACE}%"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f}{SPACE}{unit}"
    return f"{seconds:.1f}{SPACE}s"


def name(text: object, limit: int = 80) -> str:
    """Return a name as one line of at most `limit` printable characters, its middle left out."""
    line = "".join(c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "\ufffd" for c in str(text))
    return line if len(line) <= limit else f"{line[: limit // 2]}…{line[-(limit - limit // 2 - 1) :]}"


def plain(value: object) -> str:
    """Return a JSON value as text for a table."""
    match value:
        case None:
            text = "n/a"
        case bool():
            text = str(value).lower()
        case list():
            text = ", ".join(map(plain, value)) or "none"
        case float():
            text = f"{value:g}"
        case _:
            text = str(value) or "empty"
    return name(text, 300)
