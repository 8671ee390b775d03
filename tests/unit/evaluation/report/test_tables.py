"""Tables of numbers."""

from __future__ import annotations

from job.evaluation.report.tables import MAX_ROWS, Row, Table, limited
from job.evaluation.report.values import count


def test_long_table() -> None:
    """Of many labels the first are shown, and the note says so; each reason for n/a is given once."""
    rows = [Row(f"label {n}", [count(None, "no images"), count(n)]) for n in range(MAX_ROWS + 1)]

    short, long = limited(Table(["a", "b"], rows[:2]), "by size"), limited(Table(["a", "b"], rows), "by size")

    assert (2, "n/a: no images.") == (len(short.rows), short.note)
    assert (MAX_ROWS, "500 of 501 labels, by size. n/a: no images.") == (len(long.rows), long.note)
