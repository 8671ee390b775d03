"""Finds the images of an input: by walking its folders, or by reading a table and looking up its rows."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import replace
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from job import storage, uri
from job.data import import_files
from job.data.folders import LAYOUT, Layout, is_ignored
from job.data.labels import SPLIT_NAMES, check_labels
from job.data.quarantine import Quarantined
from job.errors import DataError
from job.observability import log
from job.storage import lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.settings import InputSettings
    from job.data.quarantine import Reason
    from job.storage import ObjectInfo, Store

_KINDS: dict[str, import_files.Kind] = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

_MAX_TABLE_BYTES = 2**30
"""A larger file without a suffix of a table is not read: it is probably an archive."""


class Listing:
    """Images in the order found, in growing columns: 28 bytes and a name per image.

    Attributes:
        roots: the URIs of the stores that contain them.
        labels: label -> its number.
        names: of the objects, relative to their root.
        root: index into ``roots``.
        label: number of the label; -1: excluded from the manifest.
        split: split code, 0 if none is named.
        size, crc32c, generation, gzip: as in storage.ObjectInfo, 0 if no object has the name.
        quarantined: images known to be unusable without reading them.
    """

    def __init__(self) -> None:
        self.roots: list[str] = []
        self.labels: dict[str, int] = {}
        self.names: list[str] = []
        self.root = array("H")
        self.label = array("i")
        self.split = array("B")
        self.size = array("q")
        self.crc32c = array("I")
        self.generation = array("q")
        self.gzip = array("B")
        self.quarantined: list[Quarantined] = []

    def add(self, name: str, label: int = -1, split: int = 0) -> int:
        """Append an image of the latest root; return its row."""
        self.names.append(name)
        self.root.append(len(self.roots) - 1)
        self.label.append(label)
        self.split.append(split)
        for column in (self.size, self.crc32c, self.generation, self.gzip):
            column.append(0)
        return len(self.names) - 1

    def set_info(self, row: int, info: ObjectInfo) -> None:
        """Record the object that is stored under a row's name."""
        self.size[row] = info.size
        self.crc32c[row] = info.crc32c
        self.generation[row] = info.generation
        self.gzip[row] = info.gzip

    def label_number(self, label: str) -> int:
        """Return a label's number; assign one to a new label."""
        return self.labels.setdefault(label, len(self.labels))

    def quarantine_unusable(self) -> None:
        """Quarantine the images that do not exist or have no bytes."""
        labels = list(self.labels)
        for row, size in enumerate(self.size):
            if size == 0 and (label := self.label[row]) >= 0:
                exists = self.generation[row] != 0  # the generation of an object is never 0
                reason, detail = _EMPTY if exists else _MISSING
                image_uri = display_uri(self.roots[self.root[row]], self.names[row])
                self.quarantined.append(Quarantined(image_uri, labels[label], 0, reason, detail))
                self.label[row] = -1


_EMPTY: tuple[Reason, str] = ("empty", "the file has no bytes")
_MISSING: tuple[Reason, str] = ("missing", "the manifest names it, but there is no such file")


def display_uri(root: str, name: str) -> str:
    """Return an image's URI for messages and outputs: bytes of a name that are not UTF-8 are escaped."""
    return log.printable(f"{root.rstrip('/')}/{name}")


def read(settings: InputSettings, advance: Callable[[], object] = int) -> Listing:
    """List the images of an input.

    Args:
        settings: the input; its URI is not empty.
        advance: called for every object found.

    Raises:
        DataError: nothing was found, or a table has unusable rows.
        AccessError: the store denies access.
        UnavailableError: the store does not respond.
    """
    location = uri.parse(settings.uri)
    kind: import_files.Kind | Literal["folders"] | None
    kind = _KINDS.get(PurePosixPath(location.path).suffix.lower()) if settings.format == "auto" else settings.format
    if kind is None and not _is_file(location, settings):
        kind = "folders"
    listing = Listing()
    if kind == "folders":
        _read_folders(_open(str(location), settings), listing, advance)
    else:
        _read_table(location, kind, settings, listing, advance)
    listing.quarantine_unusable()
    return listing


def _open(store_uri: str, settings: InputSettings) -> Store:
    return storage.open_store(store_uri, user_project=settings.user_project)


def _open_parent(location: uri.Location, settings: InputSettings) -> tuple[Store, str]:
    """Open the store that contains a file; return it and the file's name, empty for a whole bucket or disk."""
    folder, _, name = location.path.rpartition("/")
    return _open(str(replace(location, path=folder or ("/" if location.scheme == "file" else ""))), settings), name


def _is_file(location: uri.Location, settings: InputSettings) -> bool:
    store, name = _open_parent(location, settings)
    info = store.stat(name) if name else None
    if info and info.size > _MAX_TABLE_BYTES:
        raise DataError(
            f"{location} is one file of {info.size:,} bytes: no folder, and too large for a manifest", remedy=LAYOUT
        )
    return info is not None and info.size > 0


# --- folders ---


class _Examples:
    """Counts names and keeps the first three as examples."""

    def __init__(self) -> None:
        self.count = 0
        self.examples: list[str] = []

    def add(self, name: str) -> None:
        self.count += 1
        if self.count <= 3:
            self.examples.append(log.printable(name))

    def __str__(self) -> str:
        return f"{self.count:,}" + (f" ({', '.join(self.examples)}{', …' * (self.count > 3)})" if self.count else "")


def _read_folders(store: Store, listing: Listing, advance: Callable[[], object]) -> None:
    listing.roots.append(store.uri)
    ignored, unlabelled = _Examples(), _Examples()
    for info in store.list():
        advance()
        if is_ignored(info.name):
            ignored.add(info.name)
        else:
            listing.set_info(listing.add(info.name), info)
    layout = Layout.detect(listing.names)
    for row, name in enumerate(listing.names):
        if found := layout.parse(name):
            label, listing.split[row] = found
            listing.label[row] = listing.label_number(label)
        else:
            unlabelled.add(name)
    check_labels(listing.labels)
    if not listing.labels:
        raise DataError(
            f"no labelled image under {store.uri} (images outside class folders: {unlabelled}; other files: {ignored})",
            remedy=LAYOUT,
        )
    if ignored.count:
        log.get().info("input.litter_ignored", files=ignored.count, examples=ignored.examples)
    if unlabelled.count:
        log.get().warning("input.unlabelled_ignored", images=unlabelled.count, examples=unlabelled.examples)


# --- tables ---


class _Rows:
    """The rows of a table whose images are in one bucket or on the disk, in columns like a listing's."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.label = array("i")
        self.split = array("B")
        self.line = array("I")


def _read_table(
    location: uri.Location,
    kind: import_files.Kind | None,
    settings: InputSettings,
    listing: Listing,
    advance: Callable[[], object],
) -> None:
    store, name = _open_parent(location, settings)
    found = store.read(name) if name else None
    if found is None:
        raise DataError(
            f"there is no manifest {location}",
            remedy="check input.uri; a folder that is called like a manifest is read with input.format=folders",
        )
    data = found[0]
    if kind is None:
        kind = "jsonl" if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "csv"
    by_origin: defaultdict[str, _Rows] = defaultdict(_Rows)
    for row in import_files.read(data, location, kind):
        rows = by_origin[row.origin]
        rows.names.append(row.name)
        rows.label.append(listing.label_number(row.label))
        rows.split.append(row.split)
        rows.line.append(row.line)
    if not by_origin:
        raise DataError(f"{location} has no rows", remedy="write a row for each image: its URI and its label")
    check_labels(listing.labels)
    del found, data
    duplicates = sum(
        _look_up(origin, by_origin.pop(origin), settings, listing, advance) for origin in sorted(by_origin)
    )
    if duplicates:
        log.get().warning("input.duplicate_rows_ignored", rows=duplicates)


def _look_up(origin: str, rows: _Rows, settings: InputSettings, listing: Listing, advance: Callable[[], object]) -> int:
    """Add the rows of one bucket or the disk with their objects' facts; return the number of duplicate rows."""
    labels = list(listing.labels)
    order = sorted(range(len(rows.names)), key=rows.names.__getitem__)
    unique, duplicates = [], 0
    for name, group in groupby(order, key=rows.names.__getitem__):
        first, *others = group
        if conflict := _find_conflict(rows, labels, first, others):
            label = labels[rows.label[first]]
            listing.quarantined.append(Quarantined(display_uri(origin, name), label, 0, *conflict))
        else:
            unique.append(first)
            duplicates += len(others)
    if unique:
        folder = lookup.common_folder(rows.names[unique[0]], rows.names[unique[-1]])
        listing.roots.append(f"{origin}/{folder}".rstrip("/") or "/")
        start, prefix_length = len(listing.names), len(folder) + 1 if folder else 0
        for i in unique:
            listing.add(rows.names[i][prefix_length:], rows.label[i], rows.split[i])
            rows.names[i] = ""  # note: otherwise a million long names are held twice
        for row, info in lookup.find_objects(_open(listing.roots[-1], settings), listing.names, start):
            listing.set_info(row, info)
            advance()
    return duplicates


def _find_conflict(rows: _Rows, labels: list[str], first: int, others: list[int]) -> tuple[Reason, str] | None:
    """Describe what two rows for one image disagree on."""
    for other in others:
        lines = rows.line[first], rows.line[other]
        if rows.label[first] != rows.label[other]:
            names = labels[rows.label[first]], labels[rows.label[other]]
            return "conflicting_labels", f"line {lines[0]} calls it {names[0]!r}, line {lines[1]} calls it {names[1]!r}"
        if rows.split[first] != rows.split[other]:
            names = SPLIT_NAMES.get(rows.split[first], "no split"), SPLIT_NAMES.get(rows.split[other], "no split")
            return "conflicting_splits", f"line {lines[0]} puts it into {names[0]}, line {lines[1]} into {names[1]}"
    return None
