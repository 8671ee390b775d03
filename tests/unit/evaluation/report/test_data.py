"""The data on the page."""

from __future__ import annotations

import json

import report_files

from job.evaluation.report import data
from job.evaluation.report.files import Files


def test_splits() -> None:
    """The smallest label comes first; an older run's images are counted."""
    files = report_files.two_labels()
    recorded = data.splits(json.loads(files["metrics/metrics.json"]), Files(files.get))
    counted = data.splits({}, Files(report_files.older_run().get))

    assert [("dogs", 299.0), ("cats", 300.0)] == [(row.name, row.cells[-1].sort) for row in recorded.rows]
    assert [("cats", ["1", "0", "0", "1"])] == [(row.name, [cell.text for cell in row.cells]) for row in counted.rows]
    assert [] == data.splits({}, Files({}.get)).rows


def test_quarantine() -> None:
    """Unusable images are counted by reason, and the first are listed."""
    found = data.quarantine(Files(report_files.two_labels().get))

    assert (12, {"corrupt": 12}, 10) == (found.total, found.counts, len(found.rows))
    assert ["gs://my-bucket/flowers/cats/0000.jpg", "cats", "corrupt", "cut off"] == found.rows[0]


def test_duplicates() -> None:
    """Pairs across splits or labels come first."""
    rows = [
        {"a": "1", "b": "2", "kind": "exact", "across": []},
        {"a": "3", "b": "4", "kind": "near", "across": ["split", "label"]},
    ]
    found = data.duplicates(Files({"data/duplicates.jsonl": report_files.encode_lines(rows)}.get))

    assert (2, {"near": 1, "across splits": 1, "across labels": 1, "exact": 1}) == (found.total, found.counts)
    assert [["3", "4", "near", "splits, labels"], ["1", "2", "exact", "neither"]] == found.rows


def test_label_errors() -> None:
    """Suspected label errors are counted by split."""
    found = data.label_errors(Files(report_files.two_labels().get))

    assert (14, {"in train": 14}) == (found.total, found.counts)
    assert ["train", "cats", "dogs"] == found.rows[0][1:4]


def test_nothing_found_is_not_nothing_recorded() -> None:
    """An empty file means that there are none; an absent one says nothing."""
    empty, absent = Files({data.QUARANTINE: b""}.get), Files({}.get)

    assert (0, None) == (data.quarantine(empty).total, data.quarantine(absent).total)
