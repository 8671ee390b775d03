"""Finds the images of an input: by walking its folders, or by reading a table and looking up its rows."""

from __future__ import annotations

import re
from array import array
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from job import uri
from job.data import csv_rows, groups, import_files
from job.data.columns import Chosen
from job.data.folders import LAYOUT, Layout
from job.data.labels import SPLIT_NAMES, check_labels
from job.data.left_out import EmptyFolders, Examples, Litter, Patterns
from job.data.litter import has_image_suffix, is_litter
from job.data.manifest import Manifest, ManifestBuilder, display_uri
from job.data.quarantine import Quarantined
from job.errors import DataError, SettingsError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from job.config.settings import InputSettings
    from job.data.quarantine import Reason
    from job.storage import OpenStore, Store

_KINDS: dict[str, import_files.Kind] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{|\[\s*[\[{\"])")
"""The beginning of JSON; a CSV may begin with the name "[1].jpg"."""

_MAX_TABLE_BYTES = 2**30
"""A larger file without a suffix of a table is not read: it is probably an archive."""


def read_listing(
    settings: InputSettings, open_store: OpenStore, advance: Callable[[], object] = int
) -> tuple[Manifest, list[Quarantined]]:
    """List the images of an input.

    Args:
        settings: the input; its URI is not empty.
        open_store: opens its stores.
        advance: called for every object found.

    Returns:
        The manifest, and the images known to be unusable without reading them.

    Raises:
        DataError: nothing was found, a table has unusable rows, or class names look alike.
        SettingsError: the locale keeps this process from reading or using a name; input.group_column is set
            for a folder.
        AccessError: the store denies access.
        UnavailableError: the store does not respond.
    """
    location = uri.parse(settings.uri)
    kind: import_files.Kind | Literal["folders"] | None
    kind = _KINDS.get(PurePosixPath(location.path).suffix.lower()) if settings.format == "auto" else settings.format
    if kind is None and not _is_file(location, open_store):
        kind = "folders"
    builder = ManifestBuilder(has_groups=bool(settings.group_column))
    chosen = Chosen(settings.image_column, settings.label_column, settings.split_column, settings.group_column)
    if kind == "folders":
        if chosen.group:
            raise SettingsError(
                f"input.group_column is {chosen.group!r}, and {location} is a folder, which has no columns: its groups "
                "would be shared out over the splits",
                remedy="name the groups in a CSV or JSONL manifest, or find them in the names with input.group_pattern",
            )
        if any(chosen):
            log.get().warning("input.columns_ignored", columns=[*filter(None, chosen)], reason="the input is a folder")
        _read_folders(open_store(str(location)), settings, builder, advance)
    else:
        if settings.exclude:
            log.get().warning("input.exclude_ignored", exclude=settings.exclude, reason="the input is a manifest")
        _read_table(location, kind, chosen, open_store, builder, advance)
    builder.quarantine_unusable()
    return builder.build(), builder.quarantined


def _open_parent(location: uri.Location, open_store: OpenStore) -> tuple[Store, str]:
    """Open the store that contains a file; return it and the file's name, empty for a whole bucket or disk."""
    folder, _, name = location.path.rpartition("/")
    return open_store(str(replace(location, path=folder or ("/" if location.scheme == "file" else "")))), name


def _is_file(location: uri.Location, open_store: OpenStore) -> bool:
    store, name = _open_parent(location, open_store)
    info = store.stat(name) if name else None
    if info and info.size > _MAX_TABLE_BYTES:
        raise DataError(
            f"{location} is one file of {info.size:,} bytes: no folder, and too large for a manifest", remedy=LAYOUT
        )
    if info and has_image_suffix(name):
        above = str(location).rpartition("/")[0].rpartition("/")[0]
        raise DataError(f"{location} is an image", remedy=f"give the folder above its class folder: {above or '/'}")
    return info is not None and info.size > 0


# --- folders ---


def _read_folders(
    store: Store, settings: InputSettings, builder: ManifestBuilder, advance: Callable[[], object]
) -> None:
    builder.roots.append(store.uri)
    excluded = Patterns(settings.exclude)
    litter, unlabelled, empty = Litter(), Examples(), EmptyFolders(excluded)
    for info in store.list(found_folder=empty.add):
        advance()
        if is_litter(info.name):
            litter.add(info.name)
        elif not excluded.exclude(info.name):
            builder.set_info(builder.add(info.name, root=0), info)
    try:
        layout = Layout.detect(builder.names, settings.layout, log.printable(store.uri))
    except DataError as error:
        raise DataError(error.message, remedy=_table_meant(store.uri, litter) + error.remedy) from None
    for row, name in enumerate(builder.names):
        if found := layout.parse(name):
            label, builder.split[row] = found
            builder.label[row] = builder.label_number(label)
        else:
            unlabelled.add(name)
    if not store.uri.startswith("gs://"):
        _check_locale(builder.labels)
    check_labels(builder.labels)
    if not builder.labels:
        raise _no_label_error(store.uri, unlabelled, litter, excluded.count)
    excluded.report()
    litter.report(len(builder.names))
    empty.report(builder.names, 2 if layout.splits else 1)
    if unlabelled.count:
        log.get().warning("input.unlabelled_ignored", images=unlabelled.count, examples=unlabelled.examples)


def _no_label_error(store_uri: str, unlabelled: Examples, litter: Litter, excluded: int) -> DataError:
    """Return the error for an input without class folders, with the URI that was probably meant."""
    location = uri.parse(store_uri)
    if not unlabelled.count and not litter.count and not excluded:
        if location.scheme == "file" and not Path(location.path).exists():
            return DataError(f"there is no folder {store_uri}", remedy="check input.uri")
        return DataError(f"there is no file under {store_uri}", remedy=f"check input.uri; {LAYOUT}")
    counts = f"images outside class folders: {unlabelled}; other files: {litter}"
    counts += f"; left out by input.exclude: {excluded:,}" if excluded else ""
    above = store_uri.rpartition("/")[0] or "/"
    meant = (
        f"did you mean the folder above, {above}? Otherwise " if unlabelled.count and location.path.strip("/") else ""
    )
    remedy = (_table_meant(store_uri, litter) or meant) + LAYOUT
    return DataError(f"no labelled image under {store_uri} ({counts})", remedy=remedy)


def _table_meant(store_uri: str, litter: Litter) -> str:
    """Return the beginning of a remedy where a table lies among the images."""
    if not litter.tables.count:
        return ""
    table = f"{log.printable(store_uri).rstrip('/')}/{litter.tables.examples[0]}"
    return f"if {table} names the labels, give it as input.uri. Otherwise "


def _check_locale(labels: Iterable[str]) -> None:
    """Reject classes whose folders have names that only the locale makes unreadable."""
    for label in labels:
        if problem := uri.locale_problem(label):
            raise SettingsError(problem, remedy=uri.LOCALE_REMEDY)


# --- tables ---


def _read_table(
    location: uri.Location,
    kind: import_files.Kind | None,
    chosen: Chosen,
    open_store: OpenStore,
    builder: ManifestBuilder,
    advance: Callable[[], object],
) -> None:
    store, name = _open_parent(location, open_store)
    found = store.read(name) if name else None
    if found is None:
        raise DataError(
            f"there is no manifest {location}",
            remedy="check input.uri; a folder that is called like a manifest is read with input.format=folders",
        )
    data = found[0]
    if kind is None:
        kind = "jsonl" if _JSON.match(data) else "csv"
    lines = array("I")  # the table's line of each row
    origins: dict[str, int] = {}  # bucket or disk -> its number
    for row in import_files.read(data, location, kind, chosen):
        root = origins.setdefault(row.origin, len(origins))
        label, group = builder.label_number(row.label), groups.number(row.group)
        builder.add(row.name, root=root, label=label, split=row.split, group=group)
        lines.append(row.line)
    if not origins:
        raise DataError(f"{location} has no rows", remedy="write a row for each image: its URI and its label")
    check_labels(builder.labels)
    header_error = csv_rows.unknown_header(data, location, chosen) if kind == "csv" else None
    del found, data
    origin_of_row, duplicates = np.array(builder.root), 0
    for origin, number in sorted(origins.items()):
        rows = sorted(np.flatnonzero(origin_of_row == number).tolist(), key=builder.names.__getitem__)
        unique, merged = _merge_duplicates(builder, origin, rows, lines)
        duplicates += merged
        if unique:
            _look_up(builder, origin, unique, open_store, advance)
    if header_error and not builder.generation[0]:  # the first row names no existing file
        raise header_error
    if duplicates:
        log.get().warning("input.duplicate_rows_ignored", rows=duplicates)


def _merge_duplicates(
    builder: ManifestBuilder, origin: str, rows: list[int], lines: array[int]
) -> tuple[list[int], int]:
    """Exclude all rows of an image but the first, or all of them where they disagree: these are quarantined.

    Args:
        builder: has the rows.
        origin: the bucket, or the disk.
        rows: all of its rows, sorted by name.
        lines: the table's line of each row.

    Returns:
        One row per image, sorted by name, and the number of rows that repeat another.
    """
    labels = list(builder.labels)
    unique, duplicates = [], 0
    for name, group in groupby(rows, key=builder.names.__getitem__):
        first, *others = group
        if conflict := _find_conflict(builder, lines, labels, first, others):
            label = labels[builder.label[first]]
            builder.quarantined.append(Quarantined(display_uri(origin, name), label, 0, *conflict))
            builder.exclude([first, *others])
        else:
            unique.append(first)
            builder.exclude(others)
            duplicates += len(others)
    return unique, duplicates


def _look_up(
    builder: ManifestBuilder, origin: str, rows: list[int], open_store: OpenStore, advance: Callable[[], object]
) -> None:
    """Make the rows of one bucket or the disk relative to their common folder, and record what is stored there.

    Args:
        builder: has the rows.
        origin: the bucket, or the disk.
        rows: one per image, sorted by name.
        open_store: opens the store.
        advance: called for every object found.
    """
    folder = _common_folder(builder.names[rows[0]], builder.names[rows[-1]])
    builder.roots.append(f"{origin}/{folder}".rstrip("/") or "/")
    prefix_length = len(folder) + 1 if folder else 0
    for row in rows:
        builder.names[row] = builder.names[row][prefix_length:]
        builder.root[row] = len(builder.roots) - 1
    names = [builder.names[row] for row in rows]
    for index, info in open_store(builder.roots[-1]).stat_many(names):
        builder.set_info(rows[index], info)
        advance()


def _common_folder(first: str, last: str) -> str:
    """Return the deepest folder that contains all of some sorted names.

    Names relative to it do not depend on where the data is stored, so neither does a digest of them.

    Args:
        first: the first of the sorted names.
        last: the last one.
    """
    parts = []
    for one, other in zip(first.split("/")[:-1], last.split("/")[:-1], strict=False):
        # In a bucket these parts are ordinary names, but at the end of a URI they would be normalized away.
        if one != other or one in {"", ".", ".."} or one != one.strip():
            break
        parts.append(one)
    return "/".join(parts)


def _find_conflict(
    builder: ManifestBuilder, lines: array[int], labels: list[str], first: int, others: list[int]
) -> tuple[Reason, str] | None:
    """Describe what two rows for one image disagree on."""
    for other in others:
        one, two = lines[first], lines[other]
        if builder.label[first] != builder.label[other]:
            names = labels[builder.label[first]], labels[builder.label[other]]
            return "conflicting_labels", f"line {one} calls it {names[0]!r}, line {two} calls it {names[1]!r}"
        if builder.split[first] != builder.split[other]:
            splits = [SPLIT_NAMES.get(builder.split[row], "no split") for row in (first, other)]
            return "conflicting_splits", f"line {one} puts it into {splits[0]}, line {two} into {splits[1]}"
        if builder.group is not None and builder.group[first] != builder.group[other]:
            return "conflicting_groups", f"line {one} and line {two} put it into different groups"
    return None
