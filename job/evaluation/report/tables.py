"""Tables of numbers on the page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from job.evaluation.report import values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.evaluation.report.values import Value

MAX_ROWS: Final = 500
"""Rows of a table; the files of the run have all."""


class Row(NamedTuple):
    """A row of a table of numbers.

    Attributes:
        name: its head.
        cells: one for each column.
        bar: fractions (low, value, high) of an interval to draw; None: none.
    """

    name: str
    cells: list[Value]
    bar: tuple[float, float, float] | None = None


class Table(NamedTuple):
    """A table of numbers.

    Attributes:
        columns: heads, without that of the first column.
        rows: at most `MAX_ROWS`.
        note: what it leaves out, and why numbers are missing.
    """

    columns: list[str]
    rows: list[Row]
    note: str = ""


def limited(table: Table, order: str) -> Table:
    """Return a table with its first rows, and a note on the others and on missing numbers."""
    note = f"{MAX_ROWS} of {len(table.rows):,} labels, {order}." if len(table.rows) > MAX_ROWS else ""
    rows = [row._replace(name=values.name(row.name)) for row in table.rows[:MAX_ROWS]]
    return table._replace(rows=rows, note=" ".join(filter(None, [note, reasons(rows)])))


def reasons(rows: Sequence[Row]) -> str:
    """Return why numbers of a table are missing, each reason once."""
    found = Counter(cell.note for row in rows for cell in row.cells if cell.missing)
    return " ".join(f"n/a: {values.name(reason, 200)}." for reason in found)
