"""Reads the files of a run in chunks and measures them, so that a large one needs no memory."""

from __future__ import annotations

import hashlib
from typing import IO, TYPE_CHECKING

from job import errors, storage
from job.runs.documents import PublishedFile

if TYPE_CHECKING:
    from job.storage import ObjectInfo, Store

TRIES = 3
"""Readings of an object whose bytes do not match the store's checksum."""


def measure(store: Store, info: ObjectInfo, sink: IO[bytes] | None = None) -> PublishedFile:
    """Return the size and the checksums of an object's bytes.

    Args:
        store: has the object.
        info: as listed.
        sink: the bytes are written to it; a seekable file.

    Raises:
        FileNotFoundError: the object is gone since it was listed.
        errors.UnavailableError: other bytes than stored arrived in all tries.
    """
    for _ in range(TRIES):
        if sink is not None:
            sink.seek(0)
            sink.truncate()
        sha256, crc32c, size = hashlib.sha256(), 0, 0
        for chunk in store.read_chunks(info):
            sha256.update(chunk)
            crc32c, size = storage.crc32c(chunk, crc32c), size + len(chunk)
            if sink is not None:
                sink.write(chunk)
        if crc32c == info.crc32c:
            return PublishedFile(size=size, sha256=sha256.hexdigest(), crc32c=f"{crc32c:08x}")
    raise errors.UnavailableError(
        f"{store.uri_of(info.name)} arrived corrupted in all {TRIES} attempts",
        remedy="something between here and the store changes bytes, or the file is being written: try again",
    )


def difference(expected: PublishedFile, found: PublishedFile) -> str | None:
    """Return a sentence about the first property that differs; None if none does."""
    for name in ("size", "crc32c", "sha256"):
        wanted, got = getattr(expected, name), getattr(found, name)
        if wanted != got:
            return f"its {name} is {got}, and manifest.json has {wanted}"
    return None
