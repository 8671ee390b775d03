"""The manifest: every image's name, label, split, size, checksum and generation, as listed.

It is read once, at the start; from then on an image is a row of the manifest, and the store is never listed again. It
is the only thing in memory that grows with the number of images, so it is held in columns: 28 bytes and a name per
image.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from job import storage
from job.data.folders import LAYOUT
from job.data.labels import SPLIT_NAMES, TRAIN, join_names
from job.data.quarantine import Quarantined
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from job.data.quarantine import Reason
    from job.storage import ObjectInfo

_PlainRow: TypeAlias = "dict[str, object]"  # note: inside Manifest, `object` is a method

_COLUMNS = ("root", "label", "split", "size", "crc32c", "generation", "gzip")

_EMPTY: tuple[Reason, str] = ("empty", "the file has no bytes")
_MISSING: tuple[Reason, str] = ("missing", "the manifest names it, but there is no such file")


def display_uri(root: str, name: str) -> str:
    """Return an image's URI for messages and outputs: bytes of a name that are not UTF-8 are escaped."""
    return log.printable(f"{root.rstrip('/')}/{name}")


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images, one per row, in an order that depends only on the data: by name, then by content.

    Attributes:
        roots: the URIs of the stores that contain the images.
        labels: the classes, by code point.
        names: of the objects, relative to their root.
        root: uint16 [n], index into ``roots``.
        label: int32 [n], index into ``labels``.
        split: uint8 [n], a code of labels.SPLIT_NAMES, 0 if the input names none.
        size: int64 [n], bytes.
        crc32c: uint32 [n], of the stored bytes.
        generation: int64 [n].
        gzip: bool [n], whether the object is stored with Content-Encoding gzip.
        group: uint64 [n], a hash of the name of each image's group, 0 if it has none; None if the input names none.
    """

    roots: tuple[str, ...]
    labels: tuple[str, ...]
    names: list[str]
    root: NDArray[np.uint16]
    label: NDArray[np.int32]
    split: NDArray[np.uint8]
    size: NDArray[np.int64]
    crc32c: NDArray[np.uint32]
    generation: NDArray[np.int64]
    gzip: NDArray[np.bool_]
    group: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def uri(self, row: int) -> str:
        """Return an image's URI for messages and outputs: bytes of a name that are not UTF-8 are escaped."""
        return display_uri(self.roots[self.root[row]], self.names[row])

    def object(self, row: int) -> storage.ObjectInfo:
        """Return the listed object of an image, so that its store reads exactly that one."""
        return storage.ObjectInfo(
            name=self.names[row],
            size=int(self.size[row]),
            crc32c=int(self.crc32c[row]),
            generation=int(self.generation[row]),
            gzip=bool(self.gzip[row]),
        )

    def objects(self, rows: NDArray[np.integer[Any]]) -> Sequence[storage.ObjectInfo]:
        """Return the listed objects of these rows, created on access: a list of them would be large."""
        return _Objects(self, rows)

    def take(self, rows: NDArray[np.integer[Any]]) -> Manifest:
        """Return a manifest of these rows, in the order given, with the same roots and labels."""
        if len(rows) == len(self) and bool((rows == np.arange(len(self), dtype=rows.dtype)).all()):
            return self  # a copy would take a third of the memory of all that is known of an image
        return replace(
            self,
            names=[self.names[row] for row in rows.tolist()],
            **{column: values[rows] for column, values in self._columns().items()},
        )

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return name -> values of the columns that there are."""
        groups = {} if self.group is None else {"group": self.group}
        return {column: getattr(self, column) for column in _COLUMNS} | groups

    def content_keys(self) -> NDArray[np.uint64]:
        """Return each image's checksum and size as one number, uint64 [n]: the same for copies."""
        return content_keys(self.size, self.crc32c)

    def digest(self) -> str:
        """Return a sha256, in hexadecimal, over all names, sizes, checksums, labels, named splits and groups.

        Roots and generations are left out: the same pictures in another bucket are the same data.
        """
        sha256 = hashlib.sha256(json.dumps([len(self), *self.labels]).encode())
        for name in self.names:
            data = name.encode("utf-8", "surrogateescape")
            sha256.update(len(data).to_bytes(4, "little") + data)
        for column, dtype in (("size", "<i8"), ("crc32c", "<u4"), ("label", "<i4"), ("split", "u1")):
            sha256.update(getattr(self, column).astype(dtype).tobytes())
        if self.group is not None:  # last: without groups, the digest is that of version 0.1.0
            sha256.update(b"group" + self.group.astype("<u8").tobytes())
        return sha256.hexdigest()

    def rows(self) -> Iterator[_PlainRow]:
        """Yield each image as plain JSON, as published in ``data/manifest.jsonl``; split is None if not named."""
        for row in range(len(self)):
            yield {
                "uri": self.uri(row),
                "label": self.labels[self.label[row]],
                "split": SPLIT_NAMES.get(int(self.split[row])),
                "size": int(self.size[row]),
                "crc32c": int(self.crc32c[row]),
                "generation": int(self.generation[row]),
            }


class _Objects(Sequence[storage.ObjectInfo]):
    def __init__(self, manifest: Manifest, rows: NDArray[Any]) -> None:
        self._manifest = manifest
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> storage.ObjectInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[storage.ObjectInfo]: ...
    def __getitem__(self, index: int | slice) -> storage.ObjectInfo | Sequence[storage.ObjectInfo]:
        if isinstance(index, slice):
            return _Objects(self._manifest, self._rows[index])
        return self._manifest.object(int(self._rows[index]))


class ManifestBuilder:
    """Builds a manifest from images in the order found, in growing columns: 28 bytes and a name per image.

    Attributes:
        roots: the URIs of the stores that contain them.
        labels: label -> its number.
        names: of the objects, relative to their root.
        root: index into ``roots``.
        label: number of the label; -1: excluded from the manifest.
        split: split code, 0 if none is named.
        size, crc32c, generation, gzip: as in storage.ObjectInfo, 0 if no object has the name.
        group: hash of the name of the image's group, 0 if it has none; None if the input names none.
        quarantined: images known to be unusable without reading them.

    Args:
        has_groups: whether the input names groups.
    """

    def __init__(self, *, has_groups: bool = False) -> None:
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
        self.group = array("Q") if has_groups else None
        self.quarantined: list[Quarantined] = []

    def add(self, name: str, *, root: int, label: int = -1, split: int = 0, group: int = 0) -> int:
        """Append an image; return its row."""
        self.names.append(name)
        self.root.append(root)
        self.label.append(label)
        self.split.append(split)
        for column in (self.size, self.crc32c, self.generation, self.gzip):
            column.append(0)
        if self.group is not None:
            self.group.append(group)
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

    def exclude(self, rows: Iterable[int]) -> None:
        """Exclude rows from the manifest."""
        for row in rows:
            self.label[row] = -1

    def build(self) -> Manifest:
        """Return the manifest: sorted, and its labels numbered by code point."""
        labels = sorted(self.labels)
        new_number = np.empty(len(labels), np.int32)
        new_number[[self.labels[label] for label in labels]] = np.arange(len(labels))
        label = np.asarray(self.label)
        everything = Manifest(
            roots=tuple(self.roots),
            labels=tuple(labels),
            names=self.names,
            root=np.asarray(self.root),
            label=new_number[label],
            split=np.asarray(self.split),
            size=np.asarray(self.size),
            crc32c=np.asarray(self.crc32c),
            generation=np.asarray(self.generation),
            gzip=np.asarray(self.gzip).astype(bool),
            group=None if self.group is None else np.asarray(self.group),
        )
        return everything.take(_sort_rows(everything, np.flatnonzero(label >= 0)))


def content_keys(size: NDArray[Any], crc32c: NDArray[Any]) -> NDArray[np.uint64]:
    """Return sizes and checksums as one number each, uint64 [n]."""
    high: NDArray[np.uint64] = crc32c.astype(np.uint64) << np.uint64(32)
    return high ^ size.astype(np.uint64)


def pack(manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Return the manifest as plain arrays, for `unpack`."""
    # note: one by one: a list of all encoded names would take more memory than everything else held per image
    name_bytes, lengths = bytearray(), np.empty(len(manifest), np.uint32)
    for row, name in enumerate(manifest.names):
        encoded = name.encode("utf-8", "surrogateescape")
        name_bytes += encoded
        lengths[row] = len(encoded)
    texts = {"roots": manifest.roots, "labels": manifest.labels}
    return {
        "name_bytes": np.frombuffer(name_bytes, np.uint8),
        "name_lengths": lengths,
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
        **manifest._columns(),  # noqa: SLF001 (of this module)
    }


def unpack(arrays: dict[str, NDArray[Any]]) -> Manifest:
    """Return the manifest from the arrays of `pack`."""
    data, names, start = arrays["name_bytes"].tobytes(), [], 0
    for length in arrays["name_lengths"].tolist():
        names.append(data[start : start + length].decode("utf-8", "surrogateescape"))
        start += length
    texts = json.loads(arrays["texts"].tobytes())
    return Manifest(
        roots=tuple(texts["roots"]),
        labels=tuple(texts["labels"]),
        names=names,
        **{column: arrays[column] for column in _COLUMNS},
        group=arrays.get("group"),
    )


def _sort_rows(manifest: Manifest, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the rows sorted by name and, where two roots have the same name, by content."""
    names = manifest.names
    if len(manifest.roots) == 1:
        return np.array(sorted(rows.tolist(), key=names.__getitem__), np.intp)
    columns: list[NDArray[Any]] = [manifest.size, manifest.crc32c, manifest.label, manifest.split]
    columns += [manifest.root] if manifest.group is None else [manifest.group, manifest.root]
    return np.array(sorted(rows.tolist(), key=lambda row: (names[row], *(column[row] for column in columns))), np.intp)


SMALL_LOSS, LOSS_OF_CLASS, LARGE_CLASS = 3, 0.1, 20
"""Images that a class of over 20 may lose: 3, or a tenth of them."""


def check_classes(manifest: Manifest) -> None:
    """Reject data of fewer than two classes.

    Args:
        manifest: as listed.

    Raises:
        DataError: there are none, or one.
    """
    if len(manifest.labels) < 2:
        only = "".join(f" ({label!r}, {len(manifest):,} images)" for label in manifest.labels)
        raise DataError(
            f"two classes or more are needed, found {len(manifest.labels)}{only} under {_places(manifest)}",
            remedy=LAYOUT,
        )


def check_usable(manifest: Manifest, quarantined: Sequence[Quarantined], max_bad_fraction: float) -> None:
    """Reject data that no classifier can be trained on.

    Args:
        manifest: the usable images.
        quarantined: the others.
        max_bad_fraction: the largest fraction of all images that may be quarantined.

    Raises:
        DataError: too many are quarantined, of all or of one class; a class has no usable image, or none to train on;
            there are fewer than two classes.
    """
    check_classes(manifest)
    check_budget(manifest, quarantined, max_bad_fraction)
    where, total = _places(manifest), len(manifest) + len(quarantined)
    found = np.bincount(manifest.label, minlength=len(manifest.labels))
    counts = dict(zip(manifest.labels, found.tolist(), strict=True))
    if empty := [label for label, count in counts.items() if not count]:
        raise DataError(
            f"no image of the class {join_names(empty)} under {where} can be used, of {total:,} images "
            f"({_reasons([image for image in quarantined if image.label in empty])})",
            remedy="fix the images of this class, or remove the class",
        )
    _check_losses(counts, quarantined, where, max_bad_fraction)
    trainable = np.bincount(manifest.label[manifest.split <= TRAIN], minlength=len(counts))
    if untrainable := [label for label, count in zip(manifest.labels, trainable, strict=True) if not count]:
        raise DataError(
            f"the class {join_names(untrainable)} under {where} has images to validate or test on and none to train on",
            remedy="add images of it to the train split, or remove it from the others",
        )


def check_budget(manifest: Manifest, quarantined: Sequence[Quarantined], max_bad_fraction: float) -> None:
    """Reject data of which too many images are quarantined.

    Args:
        manifest: the usable images.
        quarantined: the others.
        max_bad_fraction: the largest fraction of all images that may be quarantined.

    Raises:
        DataError: more are.
    """
    where, total = _places(manifest), len(manifest) + len(quarantined)
    if len(quarantined) > max_bad_fraction * total:
        raise DataError(
            f"{len(quarantined):,} of {total:,} images under {where} cannot be used ({_reasons(quarantined)}), and "
            f"input.max_bad_fraction allows a fraction of {max_bad_fraction:g}.{_first(quarantined)}",
            remedy="fix or remove these images, or raise input.max_bad_fraction to leave them out",
        )


def _check_losses(
    counts: dict[str, int], quarantined: Sequence[Quarantined], where: str, max_bad_fraction: float
) -> None:
    """Reject a class that loses many of its images, though they are few of all: it would be another class."""
    for label, lost in Counter(image.label for image in quarantined).most_common():
        total = counts.get(label, 0) + lost
        fraction = max(LOSS_OF_CLASS, max_bad_fraction)
        if total > LARGE_CLASS and lost > max(SMALL_LOSS, fraction * total):
            of_class = [image for image in quarantined if image.label == label]
            raise DataError(
                f"{lost:,} of {total:,} images of the class {label!r} under {where} cannot be used "
                f"({_reasons(of_class)}), and a class may lose {SMALL_LOSS} or a fraction of {fraction:g}."
                f"{_first(of_class)}",
                remedy=f"fix or remove these images, or raise input.max_bad_fraction above {lost / total:.2f} to train "
                "without them",
            )


def _places(manifest: Manifest) -> str:
    return " and ".join(map(log.printable, manifest.roots[:3])) or "the input"


def _first(quarantined: Sequence[Quarantined]) -> str:
    examples = [f"{image.uri}: {image.detail}" for image in quarantined[:5]]
    return " The first:\n  " + "\n  ".join(examples)


def _reasons(quarantined: Sequence[Quarantined]) -> str:
    found = Counter(image.reason for image in quarantined).most_common()
    return ", ".join(f"{count:,} {reason}" for reason, count in found)
