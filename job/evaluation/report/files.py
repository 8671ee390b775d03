"""Reads the files of a run that the report is made of. Absent files are empty: older runs have fewer."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Document: TypeAlias = dict[str, Any]

Read: TypeAlias = "Callable[[str], bytes | None]"
"""Returns the content of a file of the run by its name, such as ``metrics/metrics.json``; None if there is none."""


class Files:
    """The files of a run.

    Args:
        read: returns the content of one.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    def has(self, name: str) -> bool:
        """Return whether the run has a file."""
        return self._read(name) is not None

    def document(self, name: str) -> Document:
        """Return a JSON object; an empty one if the file is absent.

        Raises:
            DataError: it is no JSON object.
        """
        data = self._read(name)
        found = {} if data is None else _parse(name, data)
        if not isinstance(found, dict):
            raise _unreadable(name, "expected a JSON object")
        return found

    def lines(self, name: str) -> list[Document]:
        """Return the objects of a JSON Lines file.

        Raises:
            DataError: a line is no JSON object.
        """
        found = []
        for line in (self._read(name) or b"").splitlines():
            row = _parse(name, line)
            if not isinstance(row, dict):
                raise _unreadable(name, "expected a JSON object in each line")
            found.append(row)
        return found

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a CSV file with a header.

        Raises:
            DataError: it is not UTF-8.
        """
        try:
            text = (self._read(name) or b"").decode()
        except UnicodeDecodeError as error:
            raise _unreadable(name, str(error)) from None
        return list(csv.DictReader(io.StringIO(text, newline="")))


def at(document: object, *keys: str) -> Any:
    """Return the value under nested keys; None if one of them is absent."""
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def flattened(document: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of each value inside nested objects."""
    if isinstance(document, dict) and document:
        for key, value in document.items():
            yield from flattened(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, document


def _parse(name: str, data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError as error:
        raise _unreadable(name, str(error)) from None


def _unreadable(name: str, problem: str) -> DataError:
    return DataError(
        f"{name} of the run is unreadable: {problem}", remedy="restore the run from a copy, or train again"
    )
