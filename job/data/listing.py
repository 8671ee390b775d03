"""Finds the images that an input leads to: by walking its folders, or by reading a table and looking its rows up."""

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

_LARGEST_TABLE = 2**30
"""Bytes. A larger file that is not called like a table is somebody's archive."""


class Listing:
    """Images in the order in which they were found, in columns that grow: 28 bytes and a name for each.

    Attributes:
        roots: the URIs of the stores that hold them.
        labels: label -> its number.
        names: of the objects, relative to their root.
        root: index into ``roots``.
        label: number of the label; -1: not an image of the manifest.
        split: code of the split, 0 where none is named.
        size, crc32c, generation, gzip: as in storage.ObjectInfo, 0 where nothing is stored under the name.
        quarantined: what can be told to be unusable without reading it.
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
        """Append an image of the newest root; return its row."""
        self.names.append(name)
        self.root.append(len(self.roots) - 1)
        self.label.append(label)
        self.split.append(split)
        for column in (self.size, self.crc32c, self.generation, self.gzip):
            column.append(0)
        return len(self.names) - 1

    def describe(self, row: int, info: ObjectInfo) -> None:
        """Enter what is stored under a row's name."""
        self.size[row] = info.size
        self.crc32c[row] = info.crc32c
        self.generation[row] = info.generation
        self.gzip[row] = info.gzip

    def number(self, label: str) -> int:
        """Return the number of a label."""
        return self.labels.setdefault(label, len(self.labels))

    def quarantine_unusable(self) -> None:
        """Leave out the images that do not exist or have no bytes."""
        texts = list(self.labels)
        for row, size in enumerate(self.size):
            if size == 0 and (label := self.label[row]) >= 0:
                there = self.generation[row] != 0  # the generation of an object is never 0
                reason, detail = _EMPTY if there else _MISSING
                where = show_uri(self.roots[self.root[row]], self.names[row])
                self.quarantined.append(Quarantined(where, texts[label], 0, reason, detail))
                self.label[row] = -1


_EMPTY: tuple[Reason, str] = ("empty", "the file has no bytes")
_MISSING: tuple[Reason, str] = ("missing", "the manifest names it, but there is no such file")


def show_uri(root: str, name: str) -> str:
    """Return an image's URI for people and outputs: bytes of a name that are not UTF-8 are escaped."""
    return log.printable(f"{root.rstrip('/')}/{name}")


def read(settings: InputSettings, advance: Callable[[], object] = int) -> Listing:
    """List the images of an input.

    Args:
        settings: the input; its URI is not empty.
        advance: called for every object that is found.

    Raises:
        DataError: nothing is there, or a table has rows that cannot be used.
        AccessError: the store refuses.
        UnavailableError: the store does not answer.
    """
    place = uri.parse(settings.uri)
    kind: import_files.Kind | Literal["folders"] | None
    kind = _KINDS.get(PurePosixPath(place.path).suffix.lower()) if settings.format == "auto" else settings.format
    if kind is None and not _is_file(place, settings):
        kind = "folders"
    listing = Listing()
    if kind == "folders":
        _read_folders(_open(str(place), settings), listing, advance)
    else:
        _read_table(place, kind, settings, listing, advance)
    listing.quarantine_unusable()
    return listing


def _open(place: str, settings: InputSettings) -> Store:
    return storage.open_store(place, user_project=settings.user_project)


def _open_folder_of(place: uri.Location, settings: InputSettings) -> tuple[Store, str]:
    """Open the store in which a file lies; return it with the file's name, empty for a whole bucket or disk."""
    folder, _, name = place.path.rpartition("/")
    return _open(str(replace(place, path=folder or ("/" if place.scheme == "file" else ""))), settings), name


def _is_file(place: uri.Location, settings: InputSettings) -> bool:
    store, name = _open_folder_of(place, settings)
    info = store.stat(name) if name else None
    if info and info.size > _LARGEST_TABLE:
        raise DataError(
            f"{place} is one file of {info.size:,} bytes: no folder, and too large for a manifest", remedy=LAYOUT
        )
    return info is not None and info.size > 0


# --- folders ---


class _Seen:
    """Counts names, and remembers a few of them to show."""

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
    litter, unlabelled = _Seen(), _Seen()
    for info in store.list():
        advance()
        if is_ignored(info.name):
            litter.add(info.name)
        else:
            listing.describe(listing.add(info.name), info)
    layout = Layout.of(listing.names)
    for row, name in enumerate(listing.names):
        if found := layout.read(name):
            label, listing.split[row] = found
            listing.label[row] = listing.number(label)
        else:
            unlabelled.add(name)
    check_labels(listing.labels)
    if not listing.labels:
        raise DataError(
            f"no labelled image under {store.uri} (images outside class folders: {unlabelled}; other files: {litter})",
            remedy=LAYOUT,
        )
    if litter.count:
        log.get().info("input.litter_ignored", files=litter.count, examples=litter.examples)
    if unlabelled.count:
        log.get().warning("input.unlabelled_ignored", images=unlabelled.count, examples=unlabelled.examples)


# --- tables ---


class _Rows:
    """The rows of a table that lie in one place, in columns like a listing's."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.label = array("i")
        self.split = array("B")
        self.line = array("I")


def _read_table(
    place: uri.Location,
    kind: import_files.Kind | None,
    settings: InputSettings,
    listing: Listing,
    advance: Callable[[], object],
) -> None:
    store, name = _open_folder_of(place, settings)
    found = store.read(name) if name else None
    if found is None:
        raise DataError(
            f"there is no manifest {place}",
            remedy="check input.uri; a folder that is called like a manifest is read with input.format=folders",
        )
    data = found[0]
    if kind is None:
        kind = "jsonl" if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "csv"
    places: defaultdict[str, _Rows] = defaultdict(_Rows)
    for row in import_files.read(data, place, kind):
        rows = places[row.place]
        rows.names.append(row.name)
        rows.label.append(listing.number(row.label))
        rows.split.append(row.split)
        rows.line.append(row.line)
    if not places:
        raise DataError(f"{place} has no rows", remedy="write a row for each image: its URI and its label")
    check_labels(listing.labels)
    del found, data
    duplicates = sum(_look_up(origin, places.pop(origin), settings, listing, advance) for origin in sorted(places))
    if duplicates:
        log.get().warning("input.duplicate_rows_ignored", rows=duplicates)


def _look_up(origin: str, rows: _Rows, settings: InputSettings, listing: Listing, advance: Callable[[], object]) -> int:
    """Add the rows of one bucket or of the disk, with what is stored there; return the number of repeated rows."""
    labels = list(listing.labels)
    order = sorted(range(len(rows.names)), key=rows.names.__getitem__)
    kept, repeated = [], 0
    for name, same in groupby(order, key=rows.names.__getitem__):
        first, *others = same
        if conflict := _find_conflict(rows, labels, first, others):
            label = labels[rows.label[first]]
            listing.quarantined.append(Quarantined(show_uri(origin, name), label, 0, *conflict))
        else:
            kept.append(first)
            repeated += len(others)
    if kept:
        folder = lookup.common_folder(rows.names[kept[0]], rows.names[kept[-1]])
        listing.roots.append(f"{origin}/{folder}".rstrip("/") or "/")
        start, skipped = len(listing.names), len(folder) + 1 if folder else 0
        for i in kept:
            listing.add(rows.names[i][skipped:], rows.label[i], rows.split[i])
            rows.names[i] = ""  # note: else a million long names are held twice
        for row, info in lookup.find_objects(_open(listing.roots[-1], settings), listing.names, start):
            listing.describe(row, info)
            advance()
    return repeated


def _find_conflict(rows: _Rows, labels: list[str], first: int, others: list[int]) -> tuple[Reason, str] | None:
    """Say what two rows of one image disagree on."""
    for other in others:
        lines = rows.line[first], rows.line[other]
        if rows.label[first] != rows.label[other]:
            texts = labels[rows.label[first]], labels[rows.label[other]]
            return "conflicting_labels", f"line {lines[0]} calls it {texts[0]!r}, line {lines[1]} calls it {texts[1]!r}"
        if rows.split[first] != rows.split[other]:
            texts = SPLIT_NAMES.get(rows.split[first], "no split"), SPLIT_NAMES.get(rows.split[other], "no split")
            return "conflicting_splits", f"line {lines[0]} puts it into {texts[0]}, line {lines[1]} into {texts[1]}"
    return None
