"""Tables of text for commands, and the ages and numbers that their flags take."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

from job.errors import SettingsError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NONE = "-"
"""What a cell without a value shows."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: columns as wide as their longest cell, two blanks apart."""
    table = [header, *([cell or NONE for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def shortened(text: str, width: int) -> str:
    """Return a text of at most some characters: of a longer one the end, where names differ."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def time_of(moment: dt.datetime | None) -> str:
    """Return a time as a cell shows it, in UTC."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M") if moment else ""


def size_of(count: int) -> str:
    """Return a number of bytes in a unit that suits it."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"


def value_of(value: object) -> str:
    """Return a JSON value as a cell shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(value_of, value))
    return log.readable(value) if isinstance(value, float) else str(value)


def counted(number: int, noun: str) -> str:
    """Return a number of things, such as ``1 run`` and ``2 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def whole_number(flag: str, text: str, *, least: int = 1) -> int:
    """Return the value of a flag.

    Raises:
        SettingsError: it is no whole number, or less than `least`.
    """
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise SettingsError(f"{flag} {text!r} is no whole number from {least}", remedy=f"as in {flag} {max(least, 10)}")
    return int(text)


def age(flag: str, text: str) -> dt.timedelta:
    """Return the value of a flag, such as ``30d``, ``12h`` or ``2w``.

    Raises:
        SettingsError: it is no age.
    """
    if (found := re.fullmatch(r"(\d{1,5})([mhdw])", text)) is None:
        raise SettingsError(
            f"{flag} {text!r} is no age: expected a number with m, h, d or w", remedy=f"as in {flag} 30d"
        )
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def since(flag: str, text: str, now: dt.datetime) -> dt.datetime:
    """Return the beginning of the time that a flag names: an age, or a date or time, in UTC unless it has a zone.

    Raises:
        SettingsError: it is neither.
    """
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - age(flag, text)
        except SettingsError:
            raise SettingsError(
                f"{flag} {text!r} is neither a date nor an age", remedy=f"as in {flag} 2026-01-31 or {flag} 7d"
            ) from None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
