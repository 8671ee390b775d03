"""Manifests written by users: CSV and JSON Lines tables of image URI, label and, optionally, split.

Vertex AI's import files for single-label image classification are read unchanged
(https://cloud.google.com/vertex-ai/docs/image-data/classification/prepare-data).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

from job import uri
from job.data import csv_rows, json_rows
from job.data.columns import SPLITS, Chosen, ColumnError, RowError, SplitSearch, known_names
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from job.data.columns import Fields

Kind = Literal["csv", "jsonl"]

_MAX_PROBLEMS = 10
_MAX_NAME_BYTES = 1024
"""Bytes of UTF-8: https://cloud.google.com/storage/docs/objects#naming"""

_KNOWN_NAMES = Chosen()


class Row(NamedTuple):
    """One image of a table.

    Attributes:
        line: the first line of its row, from 1.
        origin: ``gs://BUCKET``, or empty for the local disk.
        name: the object's name, or the absolute path without its first slash.
        label: the class.
        split: split code, 0 if none is named.
        group: what it belongs to; empty if it names nothing.
    """

    line: int
    origin: str
    name: str
    label: str
    split: int
    group: str = ""


def read(data: bytes, table: uri.Location, kind: Kind, chosen: Chosen = _KNOWN_NAMES) -> Iterator[Row]:
    """Read a table's rows; skip blank ones.

    Images are named by ``gs://…``, relative to the table's folder or, in a table on the local disk, by absolute paths.
    A local path may contain ``..``, which is resolved textually, without following links.

    Args:
        data: the whole file: UTF-8, with or without a byte order mark.
        table: location of the file.
        kind: its format.
        chosen: the columns that the settings name.

    Raises:
        DataError: the file is not such a table, its columns are unknown, or some rows cannot be used: the first ten
            are reported with their lines. Raised after the last valid row, so use no row before the iterator is
            exhausted.
    """
    search = SplitSearch()
    try:
        if kind == "csv":
            header_error = csv_rows.unknown_header(data, table, chosen)
            yield from _rows(csv_rows.read(data, table, chosen, search), table, header_error)
        else:
            yield from _rows(json_rows.read(data, table, chosen, search), table, None)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table} is not UTF-8 text: {_describe_non_utf8(data)}", remedy="save it again as UTF-8"
        ) from error
    search.check(table)


def _rows(
    records: Iterable[tuple[int, Fields | RowError]], table: uri.Location, header_error: DataError | None
) -> Iterator[Row]:
    """Yield the rows.

    Args:
        records: the line, and the values or why there are none.
        table: location of the file.
        header_error: raised if rows cannot be used: an unknown header is the probable cause.
    """
    problems: list[str] = []
    remedy = "fix or remove these rows"
    for line, values in records:
        try:
            if isinstance(values, RowError):
                raise values  # handled as those of _row
            yield _row(line, values, table)
        except RowError as problem:
            if isinstance(problem, ColumnError):
                remedy = known_names()
            problems.append(f"line {line}: {problem}")
            if len(problems) == _MAX_PROBLEMS:
                break
    if problems:
        first_line = f"{header_error}. Read as rows:" if header_error else f"{table} has rows that cannot be used:"
        more = ", and look for more" if len(problems) == _MAX_PROBLEMS else ""
        raise DataError(
            "\n  ".join([first_line, *problems]), remedy=header_error.remedy if header_error else remedy + more
        )


def _row(line: int, values: Fields, table: uri.Location) -> Row:
    if not values.image.strip():
        raise RowError("no image URI")
    if len(values.image) > _MAX_NAME_BYTES * 4:
        raise RowError(f"{values.image[:40]!r}… has {len(values.image):,} characters: no name is so long")
    if "\0" in values.image:
        raise RowError(f"{values.image!r}: a name cannot hold a NUL character")
    if not values.label:
        raise RowError(f"no label for {values.image!r}")
    split = SPLITS.get(values.split.lower())
    if split is None:
        raise RowError(f"{values.split[:40]!r} is no split: expected train, validation, test, unassigned or nothing")
    location = _locate(values.image, table)
    if location.scheme == "gs":
        origin, name = f"gs://{location.bucket}", location.path
    else:
        origin, name = "", os.path.normpath(location.path).lstrip("/")
    _check_name(name, origin)
    return Row(line, origin, name, values.label, split, values.group)


def _locate(image: str, table: uri.Location) -> uri.Location:
    """Return the location of an image, from its name in a table."""
    if (stripped := image.lstrip()).startswith("gs://"):
        image = stripped  # people write spaces after commas; before a relative name they may be part of it
    if image.endswith("/"):
        raise RowError(f"{image!r} is a folder, not an image")
    local = image.startswith(("/", "~/", "file:"))
    if local or ":" in image:
        try:
            location = uri.parse(image)
        except ValueError as error:
            raise RowError(str(error)) from error
        if local and table.scheme == "gs":
            raise RowError(
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
        raise RowError(f"{image!r} leads out of the manifest's folder: write gs://{table.bucket}/… instead")
    # Everything else is taken literally: in a bucket, "a//b" and "a/./b" are distinct names.
    image = image.removeprefix("./")
    return uri.Location("gs", table.bucket, f"{folder}/{image}" if folder else image)


def _check_name(name: str, origin: str) -> None:
    if not name:
        raise RowError("no name after the bucket or the slash")
    try:
        # On the local disk, names may be any bytes, which Python represents as lone surrogates.
        size = len(name.encode("utf-8", "strict" if origin else "surrogateescape"))
    except UnicodeEncodeError as error:
        raise RowError(f"{name!r} is not Unicode text") from error
    if origin and size > _MAX_NAME_BYTES:
        raise RowError(f"{name[:40]!r}… has {size} bytes: names of objects have at most {_MAX_NAME_BYTES}")


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
