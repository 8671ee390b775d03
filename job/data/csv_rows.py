"""Parses the rows of a CSV manifest, with or without a header."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from job.data.columns import LABEL, ONE_LABEL, ROLES, SPLITS, Fields, RowError, is_like_header, known_names
from job.data.labels import join_names
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from job.data.columns import Chosen, Role, SplitSearch
    from job.uri import Location

_HEADER_LIMIT = 100_000
"""Characters; below the csv module's limit for one cell."""


def read(data: bytes, table: Location, chosen: Chosen, search: SplitSearch) -> Iterator[tuple[int, Fields | RowError]]:
    """Yield the line of each row that is not blank, and its values or why it has none.

    Args:
        data: the whole file.
        table: its location.
        chosen: the columns that the settings name.
        search: receives the columns that are not used.

    Raises:
        DataError: it is not CSV, or its columns are unknown.
        UnicodeDecodeError: it is not UTF-8.
    """
    text = _open(data)
    columns, delimiter = _find_header(_first_row(text), table, chosen)
    rows = _read_cells(text, delimiter, table)
    if columns:
        next(rows)
    parse = partial(_parse, columns, search) if columns else _parse_vertex
    for line, cells in rows:
        try:
            yield line, parse(cells)
        except RowError as error:
            yield line, error


def unknown_header(data: bytes, table: Location, chosen: Chosen) -> DataError | None:
    """Return the error for a table whose first row looks like a header, although its names are unknown; else None.

    `read` takes that row for an image: raise the error if there is no such image.

    Raises:
        DataError, UnicodeDecodeError: as `read`.
    """
    first = _first_row(_open(data))
    columns, delimiter = _find_header(first, table, chosen)
    cells = first.cells[delimiter]
    if columns or not is_like_header(cells):
        return None
    return _header_error(first.line, cells, table, "no column is known to hold the image URI or the label")


def _open(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")


class _FirstRow(NamedTuple):
    """The first row that is not blank.

    Attributes:
        line: its line, from 1.
        cells: delimiter -> the cells, if this is the delimiter.
        below: delimiter -> the cells of the next row.
    """

    line: int
    cells: dict[str, list[str]]
    below: dict[str, list[str]]


def _first_row(text: io.TextIOWrapper) -> _FirstRow:
    rows = ((number, line) for number, line in enumerate(text, 1) if line.strip())
    line, first = next(rows, (1, ""))
    _, below = next(rows, (1, ""))
    text.seek(0)
    return _FirstRow(line, _split(first), _split(below))


def _split(line: str) -> dict[str, list[str]]:
    """Return delimiter -> the cells of a line."""
    return {delimiter: next(csv.reader([line[:_HEADER_LIMIT]], delimiter=delimiter), []) for delimiter in ",;\t"}


class _Columns(NamedTuple):
    """The names of the columns, and the positions of those that are used; ``split`` and ``group`` are -1 if absent."""

    names: list[str]
    image: int
    label: int
    split: int
    group: int


def _find_header(first: _FirstRow, table: Location, chosen: Chosen) -> tuple[_Columns | None, str]:
    """Return the columns, None if the first row is no header, and the delimiter."""
    for delimiter in first.cells:
        if columns := _find_columns(first, delimiter, table, chosen):
            return columns, delimiter
    delimiter = next((delimiter for delimiter, cells in first.cells.items() if len(cells) > 1), ",")
    for role, name in zip(ROLES, chosen, strict=True):
        if name:
            raise _header_error(first.line, first.cells[delimiter], table, _absent(role, name), role)
    return None, delimiter


def _find_columns(first: _FirstRow, delimiter: str, table: Location, chosen: Chosen) -> _Columns | None:
    """Parse the first row as a header; None if it is not one."""
    line, cells = first.line, first.cells[delimiter]
    found = [role.find(cells, name) for role, name in zip(ROLES, chosen, strict=True)]
    image, label, split, group = found
    if not image and not label:
        return None
    if not (image and label) and not any(chosen) and any(set("./") & set(cell) for cell in cells):
        return None  # no header: a row whose class is named like a column
    for role, name, columns in zip(ROLES, chosen, found, strict=True):
        if not columns and role is LABEL and (one_hot := _one_hot(cells, first.below[delimiter])):
            raise DataError(
                f"{table}, line {line}: the columns {join_names(one_hot)} hold 0 or 1: the labels are one-hot",
                remedy="write one column with the label of each image, and name it 'label'",
            )
        if not columns and (name or role.required):
            raise _header_error(line, cells, table, _absent(role, name), role)
        if len(columns) > 1:
            raise DataError(
                f"{table}, line {line}: {' and '.join(repr(cells[i]) for i in columns)} could be the same column",
                remedy=f"name the right one in {role.setting}, or rename or remove the others",
            )
    return _Columns(cells, image[0], label[0], *(columns[0] if columns else -1 for columns in (split, group)))


def _one_hot(header: list[str], below: list[str]) -> list[str]:
    """Return the columns of a header that hold 0 or 1 in the next row, if there are several."""
    found = [
        name.strip() for name, cell in zip(header, below, strict=False) if cell.strip() in {"0", "1", "0.0", "1.0"}
    ]
    return found if len(found) > 1 else []


def _absent(role: Role, name: str) -> str:
    return f"there is no column {name!r} ({role.setting})" if name else f"no column is known to hold the {role.what}"


def _header_error(line: int, cells: list[str], table: Location, problem: str, role: Role | None = None) -> DataError:
    """Return the error for a row that is no header.

    Args:
        line: of the row.
        cells: of the row.
        table: its location.
        problem: what is wrong with it.
        role: of the column that is not there; None: the columns are not known.
    """
    verdict = "looks like a header, but" if is_like_header(cells) else "is no header for these settings:"
    return DataError(
        f"{table}: line {line} {verdict} {problem}: {join_names(cells)}",
        remedy=(
            known_names()
            if role is None or role.required
            else f"name one of these columns in {role.setting}, or leave it empty"
        )
        + ". Columns are separated by a comma, semicolon or tab",
    )


def _read_cells(text: Iterable[str], delimiter: str, table: Location) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that is not blank."""
    # note: strict, since otherwise an unclosed quote silently swallows the rest of the file
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{table} is not CSV from line {line} on: {error}",
                remedy='write a text that holds the delimiter or a quote in quotes, and a quote in it twice: "a ""b"""',
            ) from error
        if any(map(str.strip, cells)):
            yield line, cells


def _parse(columns: _Columns, search: SplitSearch, cells: list[str]) -> Fields:
    width = len(columns.names)
    if any(map(str.strip, cells[width:])):
        raise RowError(
            f"{len(cells)} cells, but the header has {width}: a text that holds the delimiter must be quoted"
        )
    cells += [""] * (width - len(cells))
    split = ""
    if columns.split >= 0:
        split = cells[columns.split].strip()
    elif search.is_open:
        used = columns.image, columns.label, columns.group
        search.add({name: cells[i] for i, name in enumerate(columns.names) if i not in used})
    group = cells[columns.group].strip() if columns.group >= 0 else ""
    return Fields(cells[columns.image], cells[columns.label].strip(), split, group)


def _parse_vertex(cells: list[str]) -> Fields:
    """Parse Vertex AI's ``[ML_USE,]GCS_FILE_PATH,LABEL``; each row may omit the first cell."""
    split = ""
    if len(cells) > 1 and cells[0].strip().lower() in SPLITS:
        split, *cells = cells
    image, label, *extra = [*cells, ""]
    if any(map(str.strip, extra)):
        raise RowError(f"{label!r} and {extra[0]!r}: {ONE_LABEL}")
    return Fields(image, label.strip(), split.strip())
