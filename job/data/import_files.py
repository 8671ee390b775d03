"""Manifests written by users: CSV and JSON Lines tables of image URI, label and, optionally, split.

Columns are identified by their names, in any case and order. Vertex AI's import files for single-label image
classification are read unchanged: CSV rows ``[ML_USE,]GCS_FILE_PATH,LABEL`` without a header, and JSON Lines with
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

# Names of columns and keys, in lower case, without spaces, "_" and "-".
_IMAGE_COLUMNS = frozenset({
    "image", "imageuri", "imageurl", "imagepath", "imagegcsuri", "gcsuri", "gcsfilepath", "uri", "url", "path", "file",
    "filename", "filepath",
})  # fmt: skip
_LABEL_COLUMNS = frozenset({"label", "class", "classname", "category"})
_SPLIT_COLUMNS = frozenset({"split", "mluse", "set", "subset"})

_SPLITS = SPLIT_WORDS | {"unassigned": 0, "": 0}
_SEPARATORS = str.maketrans("", "", " _-")
_ONE_LABEL = "expected one label: images of several classes are not supported"

_MAX_PROBLEMS = 10
_MAX_NAME_BYTES = 1024
"""Bytes of UTF-8: https://cloud.google.com/storage/docs/objects#naming"""

_HEADER_LIMIT = 100_000
"""Characters; below the csv module's limit for one cell."""

_T = TypeVar("_T")


class Row(NamedTuple):
    """One image of a table.

    Attributes:
        line: the first line of its row, from 1.
        origin: ``gs://BUCKET``, or empty for the local disk.
        name: the object's name, or the absolute path without its first slash.
        label: the class.
        split: split code, 0 if none is named.
    """

    line: int
    origin: str
    name: str
    label: str
    split: int


class _Fields(NamedTuple):
    """The unparsed values of a row; empty if absent."""

    image: str
    label: str
    split: str


class _RowError(Exception):
    """A row cannot be used."""


def read(data: bytes, table: uri.Location, kind: Kind) -> Iterator[Row]:
    """Read a table's rows; skip blank ones.

    Images are named by ``gs://…``, relative to the table's folder or, in a table on the local disk, by absolute paths.
    A local path may contain ``..``, which is resolved textually, without following links.

    Args:
        data: the whole file: UTF-8, with or without a byte order mark.
        table: location of the file.
        kind: its format.

    Raises:
        DataError: the file is not such a table, or some rows cannot be used: the first ten are reported with their
            lines. Raised after the last valid row, so use no row before the iterator is exhausted.
    """
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    try:
        if kind == "csv":
            yield from _rows(*_read_csv(text, table), table)
        else:
            yield from _rows(enumerate(text, 1), _json_fields, table)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table} is not UTF-8 text: {_describe_non_utf8(data)}", remedy="save it again as UTF-8"
        ) from error


def _rows(
    records: Iterable[tuple[int, _T]], fields: Callable[[_T], _Fields | None], table: uri.Location
) -> Iterator[Row]:
    problems: list[str] = []
    for line, record in records:
        try:
            if values := fields(record):
                yield _row(line, values, table)
        except _RowError as problem:
            problems.append(f"line {line}: {problem}")
            if len(problems) == _MAX_PROBLEMS:
                break
    if problems:
        raise DataError(
            "\n  ".join([f"{table} has rows that cannot be used:", *problems]),
            remedy="mend or remove these rows" + (", and look for more" if len(problems) == _MAX_PROBLEMS else ""),
        )


def _row(line: int, values: _Fields, table: uri.Location) -> Row:
    if not values.image.strip():
        raise _RowError("no image URI")
    if len(values.image) > _MAX_NAME_BYTES * 4:
        raise _RowError(f"{values.image[:40]!r}… has {len(values.image):,} characters: no name is so long")
    if "\0" in values.image:
        raise _RowError(f"{values.image!r}: a name cannot hold a NUL character")
    if not values.label:
        raise _RowError(f"no label for {values.image!r}")
    split = _SPLITS.get(values.split.lower())
    if split is None:
        raise _RowError(f"{values.split[:40]!r} is no split: expected train, validation, test, unassigned or nothing")
    location = _locate(values.image, table)
    if location.scheme == "gs":
        origin, name = f"gs://{location.bucket}", location.path
    else:
        origin, name = "", os.path.normpath(location.path).lstrip("/")
    _check_name(name, origin)
    return Row(line, origin, name, values.label, split)


def _locate(image: str, table: uri.Location) -> uri.Location:
    """Return the location of an image, from its name in a table."""
    if (stripped := image.lstrip()).startswith("gs://"):
        image = stripped  # people write spaces after commas; before a relative name they may be part of it
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
    return _relative_location(table, image)


def _relative_location(table: uri.Location, image: str) -> uri.Location:
    """Return the location of an image whose name is relative to the table's folder."""
    folder = table.path.rpartition("/")[0]
    if table.scheme == "file":
        return uri.Location("file", "", f"{folder}/{image}")
    if ".." in image.split("/"):
        raise _RowError(f"{image!r} leads out of the manifest's folder: write gs://{table.bucket}/… instead")
    # Everything else is taken literally: in a bucket, "a//b" and "a/./b" are distinct names.
    image = image.removeprefix("./")
    return uri.Location("gs", table.bucket, f"{folder}/{image}" if folder else image)


def _check_name(name: str, origin: str) -> None:
    if not name:
        raise _RowError("no name after the bucket or the slash")
    try:
        # On the local disk, names may be any bytes, which Python represents as lone surrogates.
        size = len(name.encode("utf-8", "strict" if origin else "surrogateescape"))
    except UnicodeEncodeError as error:
        raise _RowError(f"{name!r} is not Unicode text") from error
    if origin and size > _MAX_NAME_BYTES:
        raise _RowError(f"{name[:40]!r}… has {size} bytes: names of objects have at most {_MAX_NAME_BYTES}")


def _describe_non_utf8(data: bytes) -> str:
    """Describe where the text stops being UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it begins like UTF-16"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line} has the byte 0x{data[error.start]:02x}"
    raise AssertionError("called for bytes that are UTF-8")


class _Columns(NamedTuple):
    """Column positions in a CSV file; ``split`` is -1 if absent."""

    image: int
    label: int
    split: int
    width: int


def _read_csv(
    text: io.TextIOWrapper, table: uri.Location
) -> tuple[Iterator[tuple[int, list[str]]], Callable[[list[str]], _Fields | None]]:
    """Detect delimiter and columns from the first non-blank line; return the rows and the parser of a row."""
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


def _find_columns(cells: list[str], table: uri.Location) -> _Columns | None:
    """Parse the first row as a header; None if it is not one."""
    keys = [_key(cell) for cell in cells]
    found = [
        [i for i, key in enumerate(keys) if key in names] for names in (_IMAGE_COLUMNS, _LABEL_COLUMNS, _SPLIT_COLUMNS)
    ]
    image, label, split = found
    if not image and not label:
        return None
    if not (image and label) and any(set("./") & set(cell) for cell in cells):
        return None  # no header: a row whose class is named like a column
    for what, columns, names in (("image URI", image, _IMAGE_COLUMNS), ("label", label, _LABEL_COLUMNS)):
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
    """Parse ``[ML_USE,]GCS_FILE_PATH,LABEL``; each row may omit the first cell."""
    split = ""
    if len(cells) > 1 and cells[0].strip().lower() in _SPLITS:
        split, *cells = cells
    image, label, *extra = [*cells, ""]
    if any(map(str.strip, extra)):
        raise _RowError(f"{label!r} and {extra[0]!r}: {_ONE_LABEL}")
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
    label, split = _get(item, _LABEL_COLUMNS), _get(item, _SPLIT_COLUMNS)
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
    return _Fields(_text(_get(item, _IMAGE_COLUMNS)), _text(label).strip(), _text(split).strip())


def _get(item: dict[str, object], names: frozenset[str]) -> object:
    """Return the value of the single key that is among the names; None if there is none."""
    keys = [key for key in item if _key(key) in names]
    if len(keys) > 1:
        raise _RowError(f"{keys[0]!r} and {keys[1]!r} could be the same: expected one of them")
    return item[keys[0]] if keys else None


def _text(value: object) -> str:
    """Return a JSON value as text: integers are accepted, since classes may be numbered."""
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
    return name.strip().lower().translate(_SEPARATORS)
