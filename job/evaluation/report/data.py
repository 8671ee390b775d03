"""The data of the run: images by label and split, unusable ones, duplicates, suspected label errors."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from job.evaluation.report import values
from job.evaluation.report.files import at
from job.evaluation.report.tables import Row, Table, limited
from job.evaluation.report.values import count, share

if TYPE_CHECKING:
    from job.evaluation.report.files import Document, Files

QUARANTINE: Final = "data/quarantine.jsonl"
DUPLICATES: Final = "data/duplicates.jsonl"
LABEL_ERRORS: Final = "data/label_errors.jsonl"

FIRST_ROWS: Final = 10
"""Rows of a list of examples."""


class Examples(NamedTuple):
    """What was found in the data, with the first rows.

    Attributes:
        total: how many there are; None: the run has not recorded it.
        counts: kind -> how many.
        columns: heads of the rows.
        rows: the first ones.
    """

    total: int | None
    counts: dict[str, int]
    columns: list[str]
    rows: list[list[str]]


def splits(metrics: Document, files: Files) -> Table:
    """Return the images of each label by split, the smallest label first."""
    names = ("train", "validation", "test")
    counts: dict[str, dict[str, int]] = at(metrics, "data", "labels") or {}
    if not counts:
        counted = Counter((row.get("label"), row.get("split")) for row in files.lines("data/split.jsonl"))
        of_rows = sorted({str(label) for label, _ in counted})
        counts = {label: {split: counted[label, split] for split in names} for label in of_rows}
    rows = [
        Row(label, [*(count(of.get(n, 0)) for n in names), count(sum(of.values()))]) for label, of in counts.items()
    ]
    rows.sort(key=lambda row: row.cells[-1].sort or 0.0)
    return limited(Table([*names, "all"], rows), "the smallest first")


def quarantine(files: Files) -> Examples:
    """Return the images that could not be used."""
    rows = files.lines(QUARANTINE)
    first = [[values.name(row.get(key), 200) for key in ("uri", "label", "reason", "detail")] for row in rows]
    counts = dict(Counter(str(row.get("reason")) for row in rows).most_common())
    return Examples(_total(files, QUARANTINE, rows), counts, ["image", "label", "reason", "detail"], first[:FIRST_ROWS])


def duplicates(files: Files) -> Examples:
    """Return the pairs of images that are the same or nearly the same, those across splits or labels first."""
    rows = files.lines(DUPLICATES)
    rows.sort(key=lambda row: -len(row.get("across") or []))
    counts: Counter[str] = Counter()
    for row in rows:
        counts["exact" if row.get("kind") == "exact" else "near"] += 1
        counts.update(f"across {side}s" for side in row.get("across") or [])
    shown = [
        [values.name(row.get("a"), 200), values.name(row.get("b"), 200), str(row.get("kind")), _across(row)]
        for row in itertools.islice(rows, FIRST_ROWS)
    ]
    return Examples(_total(files, DUPLICATES, rows), dict(counts), ["image", "other image", "kind", "across"], shown)


def label_errors(files: Files) -> Examples:
    """Return the images whose label is probably wrong, the most suspicious first."""
    rows = files.lines(LABEL_ERRORS)
    first = [
        [
            *(values.name(row.get(key), 200) for key in ("uri", "split", "label", "suggested")),
            share(row.get("probability")).text,
        ]
        for row in rows[:FIRST_ROWS]
    ]
    counts = dict(Counter(f"in {row.get('split')}" for row in rows).most_common())
    return Examples(
        _total(files, LABEL_ERRORS, rows),
        counts,
        ["image", "split", "label", "suggested", "probability of the label"],
        first,
    )


def _across(row: Document) -> str:
    return ", ".join(f"{side}s" for side in row.get("across") or []) or "neither"


def _total(files: Files, name: str, rows: list[Document]) -> int | None:
    return len(rows) if files.has(name) else None
