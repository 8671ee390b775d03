"""The manifests that people write: CSV and JSON Lines tables of image URI, label and, where they like, split.

Columns are known by their names, whatever their case and order. Vertex AI's import files for single-label image
classification are read as they are: CSV rows ``[ML_USE,]GCS_FILE_PATH,LABEL`` without a header, and JSON Lines with
``imageGcsUri``, ``classificationAnnotation`` and ``dataItemResourceLabels``
(https://cloud.google.com/vertex-ai/docs/image-data/classification/prepare-data).
"""

from __future__ import annotations

import csv
import io
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeVar

from job import uri
from job.data.labels import SPLIT_WORDS
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Kind = Literal["csv", "jsonl"]

# Names of columns and keys, in lower case, without blanks, "_" and "-".
_IMAGE_NAMES = frozenset({
    "image", "imageuri", "imageurl", "imagepath", "imagegcsuri", "gcsuri", "gcsfilepath", "uri", "url", "path", "file",
    "filename", "filepath",
})  # fmt: skip
_LABEL_NAMES = frozenset({"label", "class", "classname", "category"})
_SPLIT_NAMES = frozenset({"split", "mluse", "set", "subset"})

_SPLITS = SPLIT_WORDS | {"unassigned": 0, "": 0}
_IGNORED = str.maketrans("", "", " _-")
_ONE_LABEL = "expected one label: images of several classes are not supported"

_MOST_PROBLEMS = 10
_LONGEST_NAME = 1024
"""Bytes of UTF-8: https://cloud.google.com/storage/docs/objects#naming"""

_HEADER_LIMIT = 100_000
"""Characters; below the csv module's limit for one cell."""

_T = TypeVar("_T")


class Row(NamedTuple):
    """One image of a table.

    Attributes:
        line: where its row begins, from 1.
        place: ``gs://BUCKET``, or empty for the local disk.
        name: the object's name, or the absolute path without its first slash.
        label: the class.
        split: the code of a split, 0 where none is named.
    """

    line: int
    place: str
    name: str
    label: str
    split: int


class _Fields(NamedTuple):
    """What a row says, as it is written; empty where it says nothing."""

    image: str
    label: str
    split: str


class _RowError(Exception):
    """What is wrong with one row."""


def read(data: bytes, table: uri.Location, kind: Kind) -> Iterator[Row]:
    """Read a table's rows; blank ones are passed over.

    Images are named by ``gs://…``, or relative to the table's own folder, or, in a table on the local disk, by absolute
    paths. Such a path may have ``..``, which is resolved as text, without regard to links.

    Args:
        data: the whole file: UTF-8, with or without a byte order mark.
        table: where the file lies.
        kind: its format.

    Raises:
        DataError: the file is no such table, or some rows cannot be used: the first ten are named with their lines.
            This comes after the last good row, so use no row before the iterator has ended.
    """
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    try:
        if kind == "csv":
            yield from _rows(*_read_csv(text, table), table)
        else:
            yield from _rows(enumerate(text, 1), _json_fields, table)
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text: {_first_fault(data)}", remedy="save it again as UTF-8") from error


def _rows(
    records: Iterable[tuple[int, _T]], fields: Callable[[_T], _Fields | None], table: uri.Location
) -> Iterator[Row]:
    problems: list[str] = []
    for line, record in records:
        try:
            if given := fields(record):
                yield _row(line, given, table)
        except _RowError as problem:
            problems.append(f"line {line}: {problem}")
            if len(problems) == _MOST_PROBLEMS:
                break
    if problems:
        raise DataError(
            "\n  ".join([f"{table} has rows that cannot be used:", *problems]),
            remedy="mend or remove these rows" + (", and look for more" if len(problems) == _MOST_PROBLEMS else ""),
        )


def _row(line: int, given: _Fields, table: uri.Location) -> Row:
    if not given.image.strip():
        raise _RowError("no image URI")
    if len(given.image) > _LONGEST_NAME * 4:
        raise _RowError(f"{given.image[:40]!r}… has {len(given.image):,} characters: no name is so long")
    if "\0" in given.image:
        raise _RowError(f"{given.image!r}: a name cannot hold a NUL character")
    if not given.label:
        raise _RowError(f"no label for {given.image!r}")
    split = _SPLITS.get(given.split.lower())
    if split is None:
        raise _RowError(f"{given.split[:40]!r} is no split: expected train, validation, test, unassigned or nothing")
    location = _locate(given.image, table)
    if location.scheme == "gs":
        place, name = f"gs://{location.bucket}", location.path
    else:
        place, name = "", os.path.normpath(location.path).lstrip("/")
    _check_name(name, place)
    return Row(line, place, name, given.label, split)


def _locate(image: str, table: uri.Location) -> uri.Location:
    """Find out where an image lies, from how a table names it."""
    if (stripped := image.lstrip()).startswith("gs://"):
        image = stripped  # people write blanks after commas; before a relative name they may be part of the name
    if image.endswith("/"):
        raise _RowError(f"{image!r} is a folder, not an image")
    local = image.startswith(("/", "~/", "file:"))
    if local or ":" in image:
        try:
            location = uri.parse(image)
        except ValueError as error:
            raise _RowError(str(error)) from error
        if local and table.scheme == "gs":
            raise _RowError(
                f"{image!r} is on a local disk, but the manifest is in a bucket: "
                "expected gs://BUCKET/NAME or a name relative to the manifest"
            )
        if local or location.scheme == "gs":
            return location
    return _beside(table, image)


def _beside(table: uri.Location, image: str) -> uri.Location:
    """Return the location of an image whose name is relative to the table's folder."""
    folder = table.path.rpartition("/")[0]
    if table.scheme == "file":
        return uri.Location("file", "", f"{folder}/{image}")
    if ".." in image.split("/"):
        raise _RowError(f"{image!r} leads out of the manifest's folder: write gs://{table.bucket}/… instead")
    # All else is taken as it is: to a bucket "a//b" and "a/./b" are names of their own.
    image = image.removeprefix("./")
    return uri.Location("gs", table.bucket, f"{folder}/{image}" if folder else image)


def _check_name(name: str, place: str) -> None:
    if not name:
        raise _RowError("no name after the bucket or the slash")
    try:
        # On the local disk names may be any bytes, which Python holds as lone surrogates.
        size = len(name.encode("utf-8", "strict" if place else "surrogateescape"))
    except UnicodeEncodeError as error:
        raise _RowError(f"{name!r} is not Unicode text") from error
    if place and size > _LONGEST_NAME:
        raise _RowError(f"{name[:40]!r}… has {size} bytes: names of objects have at most {_LONGEST_NAME}")


def _first_fault(data: bytes) -> str:
    """Say where the text stops being UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it begins like UTF-16"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line} has the byte 0x{data[error.start]:02x}"
    raise AssertionError("called for bytes that are UTF-8")


class _Columns(NamedTuple):
    """Where a CSV file has what; ``split`` is -1 where it has none."""

    image: int
    label: int
    split: int
    width: int


def _read_csv(
    text: io.TextIOWrapper, table: uri.Location
) -> tuple[Iterator[tuple[int, list[str]]], Callable[[list[str]], _Fields | None]]:
    """Find the delimiter and the columns in the first line that is not blank; return the rows and their reader."""
    first = next((line for line in text if line.strip()), "")
    text.seek(0)
    choices = {delimiter: next(csv.reader([first[:_HEADER_LIMIT]], delimiter=delimiter)) for delimiter in ",;\t"}
    for delimiter, cells in choices.items():
        if columns := _find_columns(cells, table):
            rows = _csv_rows(text, delimiter, table)
            next(rows)
            return rows, partial(_csv_fields, columns)
    delimiter = next((delimiter for delimiter, cells in choices.items() if len(cells) > 1), ",")
    return _csv_rows(text, delimiter, table), _vertex_csv_fields


def _csv_rows(text: Iterable[str], delimiter: str, table: uri.Location) -> Iterator[tuple[int, list[str]]]:
    # note: strict, because else one quote that is never closed swallows the rest of the file in silence
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


def _find_columns(cells: list[str], table: uri.Location) -> _Columns | None:
    """Read the first row as a header; None where it is not one."""
    keys = [_key(cell) for cell in cells]
    found = [[i for i, key in enumerate(keys) if key in names] for names in (_IMAGE_NAMES, _LABEL_NAMES, _SPLIT_NAMES)]
    image, label, split = found
    if not image and not label:
        return None
    if not (image and label) and any(set("./") & set(cell) for cell in cells):
        return None  # a row without a header, with a class called like a column
    for what, columns, names in (("image URI", image, _IMAGE_NAMES), ("label", label, _LABEL_NAMES)):
        if not columns:
            raise DataError(
                f"{table}, line 1: no column for the {what} in {cells!r}",
                remedy=f"name it one of {', '.join(sorted(names))}; columns are separated by a comma, semicolon or tab",
            )
    for columns in found:
        if len(columns) > 1:
            raise DataError(
                f"{table}, line 1: {' and '.join(repr(cells[i]) for i in columns)} could be the same column",
                remedy="rename or remove all of these columns but one",
            )
    return _Columns(image[0], label[0], split[0] if split else -1, len(cells))


def _csv_fields(columns: _Columns, cells: list[str]) -> _Fields:
    if any(map(str.strip, cells[columns.width :])):
        raise _RowError(
            f"{len(cells)} cells, but the header has {columns.width}: a text that holds the delimiter must be quoted"
        )
    cells += [""] * (columns.width - len(cells))
    split = cells[columns.split].strip() if columns.split >= 0 else ""
    return _Fields(cells[columns.image], cells[columns.label].strip(), split)


def _vertex_csv_fields(cells: list[str]) -> _Fields:
    """Read ``[ML_USE,]GCS_FILE_PATH,LABEL``; the first cell may be left out from row to row."""
    split = ""
    if len(cells) > 1 and cells[0].strip().lower() in _SPLITS:
        split, *cells = cells
    image, label, *more = [*cells, ""]
    if any(map(str.strip, more)):
        raise _RowError(f"{label!r} and {more[0]!r}: {_ONE_LABEL}")
    return _Fields(image, label.strip(), split.strip())


def _json_fields(line: str) -> _Fields | None:
    if not line.strip():
        return None
    try:
        item = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _RowError(f"not JSON: {error}") from error
    if not isinstance(item, dict):
        raise _RowError(f"expected a JSON object, got {line.strip()[:40]!r}")
    label, split = _find(item, _LABEL_NAMES), _find(item, _SPLIT_NAMES)
    match item:
        case {"classificationAnnotations": [_, _, *_] as annotations}:
            raise _RowError(f"{len(annotations)} labels: {_ONE_LABEL}")
        case {"classificationAnnotation": {"displayName": name}} | {
            "classificationAnnotations": [{"displayName": name}]
        }:
            label = name
    match item:
        case {"dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use}}:
            split = use
    return _Fields(_text(_find(item, _IMAGE_NAMES)), _text(label).strip(), _text(split).strip())


def _find(item: dict[str, object], names: frozenset[str]) -> object:
    """Return the value of the one key that is among the names, None where none is."""
    keys = [key for key in item if _key(key) in names]
    if len(keys) > 1:
        raise _RowError(f"{keys[0]!r} and {keys[1]!r} could be the same: expected one of them")
    return item[keys[0]] if keys else None


def _text(value: object) -> str:
    """Return a JSON value as the text of a name: numbers as people number classes are fine."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _RowError(f"expected text for image, label and split, got a {type(value).__name__}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _key(name: str) -> str:
    return name.strip().lower().translate(_IGNORED)
