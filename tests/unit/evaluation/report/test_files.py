"""Reading a run's files for the report."""

from __future__ import annotations

import pytest

from job.errors import DataError
from job.evaluation.report.files import Files, at, flattened


def test_absent_files_are_empty() -> None:
    """A run that lacks a file makes a shorter page."""
    files = Files({}.get)

    assert ({}, [], []) == (files.document("a.json"), files.lines("a.jsonl"), files.rows("a.csv"))


def test_files() -> None:
    """JSON, JSON Lines and CSV are read; text is UTF-8."""
    found = {"a.json": '{"ä": 1}', "a.jsonl": '{"b": 2}\n{"b": 3}\n', "a.csv": 'c,d\n"x,\n",y\n'}
    files = Files({name: text.encode() for name, text in found.items()}.get)

    assert {"ä": 1} == files.document("a.json")
    assert [{"b": 2}, {"b": 3}] == files.lines("a.jsonl")
    assert [{"c": "x,\n", "d": "y"}] == files.rows("a.csv")


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("document", b"{"),
        ("document", b""),
        ("document", b"[]"),
        ("lines", b"{}\n[]"),
        ("lines", b"{}\n{"),
        ("rows", b"\xff"),
    ],
)
def test_unreadable_file(method: str, data: bytes) -> None:
    """What is no such file ends with exit code 3, naming it."""
    with pytest.raises(DataError, match="a of the run is unreadable"):
        getattr(Files({"a": data}.get), method)("a")


def test_at() -> None:
    """A value under keys of which one is absent is None, and so is one below what is no object."""
    document = {"a": {"b": 0}, "c": None, "d": [1]}

    assert [0, None, None, None] == [at(document, *keys) for keys in (("a", "b"), ("a", "x"), ("c", "x"), ("d", "x"))]


def test_flattened() -> None:
    """Nested objects become dotted names; an empty one is a value."""
    assert [("a.b", 1), ("a.c", []), ("d", {})] == list(flattened({"a": {"b": 1, "c": []}, "d": {}}))
