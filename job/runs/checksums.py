"""Reads the files of a run in chunks and measures them, so that a large one needs no memory."""

from __future__ import annotations

import hashlib
import re
from typing import IO, TYPE_CHECKING

from job import errors, storage
from job.runs.documents import PublishedFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from job.storage import ObjectInfo, Store

TRIES = 3
"""Readings of an object whose bytes do not match the store's checksum."""

_SAFE_NAME = re.compile(r"(?:(?!\.\.?(?:/|$))[A-Za-z0-9._-]+/)*(?!\.\.?$)[A-Za-z0-9._-]+")
"""Names that become local paths: of the characters that this program gives to the files of a model."""


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


def download(store: Store, files: Mapping[str, PublishedFile], folder: Path) -> None:
    """Copy published files into a local folder, verified.

    Args:
        store: of the run.
        files: name -> what manifest.json has of it. Names come from the store: only plain ones become paths.
        folder: gets the files, under their names.

    Raises:
        errors.DataError: a name is no plain path below the folder; a file is missing or differs from manifest.json.
        errors.UnavailableError: the disk is full, or other bytes than stored arrived in all tries.
    """
    for name, expected in sorted(files.items()):
        if not _SAFE_NAME.fullmatch(name):
            raise _differs(store, f"manifest.json has a file {name!r}, which is no path below the run")
        info = store.stat(name)
        if info is None:
            raise _differs(store, f"{store.uri_of(name)} is missing")
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                found = measure(store, info, file)
        except FileNotFoundError as error:
            raise _differs(store, f"{store.uri_of(name)} changed while it was read") from error
        except OSError as error:
            raise errors.UnavailableError(
                f"{name} cannot be written to {folder}: {error.strerror}",
                remedy="free some space there, or set TMPDIR to a larger folder",
            ) from error
        if problem := difference(expected, found):
            raise _differs(store, f"{store.uri_of(name)}: {problem}")


def difference(expected: PublishedFile, found: PublishedFile) -> str | None:
    """Return a sentence about the first property that differs; None if none does."""
    for name in ("size", "crc32c", "sha256"):
        wanted, got = getattr(expected, name), getattr(found, name)
        if wanted != got:
            return f"its {name} is {got}, and manifest.json has {wanted}"
    return None


def _differs(store: Store, problem: str) -> errors.DataError:
    return errors.DataError(
        problem, remedy=f"finetune verify {store.uri} lists all that differs; restore it from a copy"
    )
