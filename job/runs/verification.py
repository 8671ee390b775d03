"""Verifies a published run: _SUCCESS -> manifest.json -> every file -> provenance.json.

``_SUCCESS`` has the checksum of manifest.json, manifest.json those of the files, and provenance.json names the same
files as its subjects. What was changed afterwards breaks the chain; who can replace all of it is not noticed, since
nothing is signed.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from job.errors import DataError
from job.runs import documents
from job.runs.checksums import difference, measure
from job.runs.overview import required
from job.runs.statement import PREDICATE_TYPE, PROVENANCE, STATEMENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from job.observability.progress import Progress
    from job.runs.documents import PublishedFile
    from job.storage import ObjectInfo, Store

THREADS = 8
"""Files that are read at once; of each, one chunk is in memory."""

CONTROL = ("_SUCCESS", "manifest.json", "status.json")
"""Files of a run that manifest.json cannot list: they are written after it, or may change."""


@dataclass(frozen=True)
class Difference:
    """A file that is not as it was published.

    Attributes:
        name: of the file, in the run.
        detail: what differs, a sentence.
    """

    name: str
    detail: str


@dataclass
class Verification:
    """What was found.

    Attributes:
        run_uri: of the run.
        run_id, published_at: as in manifest.json; None if it is unreadable.
        files: name -> bytes of each file that manifest.json lists.
        provenance: whether provenance.json was checked; False: the run has none, as those before it was introduced.
        differences: what is not as published, in the order of the chain, then by name.
        unlisted: files below the run that manifest.json does not list.
    """

    run_uri: str
    run_id: str | None = None
    published_at: str | None = None
    files: dict[str, int] = field(default_factory=dict)
    provenance: bool = False
    differences: list[Difference] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the findings as plain JSON."""
        return {
            "run_uri": self.run_uri,
            "run_id": self.run_id,
            "published_at": self.published_at,
            "verified": not self.differences,
            "files": len(self.files),
            "bytes": sum(self.files.values()),
            "provenance": self.provenance,
            "differences": [vars(found) for found in self.differences],
            "unlisted": self.unlisted,
        }

    def check(self) -> None:
        """Raise errors.DataError, naming the first difference and their number, if there is one."""
        if not self.differences:
            return
        first, count = self.differences[0], len(self.differences)
        number = "1 file is" if count == 1 else f"{count} files are"
        raise DataError(
            f"{self.run_uri}: {number} not as published; the first: {first.name}: {first.detail}",
            remedy="do not use this run: restore it from a copy, or delete it and train again",
        )


def verify(store: Store, progress: Progress) -> Verification:
    """Check every file of a published run.

    Args:
        store: of the run.
        progress: receives the events.

    Raises:
        errors.AccessError: the store denies access.
        errors.UnavailableError: it does not respond, after all retries.
    """
    found = Verification(store.uri)
    manifest = _read_manifest(store, found)
    with progress.phase("list", None, "objects") as phase:
        listed = {}
        for info in store.list():
            listed[info.name] = info
            phase.advance()
    if manifest is None:
        return found
    found.run_id, found.published_at = manifest.run_id, manifest.published_at
    found.files = {name: file.size for name, file in sorted(manifest.files.items())}
    found.unlisted = sorted(listed.keys() - manifest.files.keys() - {*CONTROL})
    found.differences += _compare_files(store, manifest.files, listed, progress)
    if PROVENANCE in manifest.files:
        found.provenance = True
        found.differences += _compare_provenance(store, manifest.files)
    return found


def _read_manifest(store: Store, found: Verification) -> documents.PublishedManifest | None:
    """Return manifest.json, compared with `_SUCCESS`; None if it is unreadable."""
    success, _ = _read(store, "_SUCCESS", documents.Success, found)
    manifest, sha256 = _read(store, "manifest.json", documents.PublishedManifest, found)
    if success is not None and sha256 not in (None, success.manifest_sha256):
        detail = f"its sha256 is {sha256}, and _SUCCESS has {success.manifest_sha256}"
        found.differences.append(Difference("manifest.json", detail))
    elif manifest is not None and success is not None and success.overview is not None:
        for name, recorded in required(manifest).items():
            if (shown := getattr(success.overview, name)) != recorded:
                detail = f"its overview has the {name} {shown!r}, and manifest.json has {recorded!r}"
                found.differences.append(Difference("_SUCCESS", detail))
    return manifest


_Model = TypeVar("_Model", documents.Success, documents.PublishedManifest)


def _read(store: Store, name: str, model: type[_Model], found: Verification) -> tuple[_Model | None, str | None]:
    """Return a document and its sha256; None for what cannot be read."""
    stored = store.read(name)
    if stored is None:
        found.differences.append(Difference(name, "it is missing"))
        return None, None
    sha256 = hashlib.sha256(stored[0]).hexdigest()
    try:
        return documents.parse(stored[0], model), sha256
    except documents.UnreadableError as error:
        found.differences.append(Difference(name, f"it is unreadable: {error}"))
        return None, sha256


def _compare_files(
    store: Store, files: Mapping[str, PublishedFile], listed: Mapping[str, ObjectInfo], progress: Progress
) -> list[Difference]:
    """Return the files that differ from manifest.json, by name."""

    def compare(name: str) -> str | None:
        expected, info = files[name], listed.get(name)
        if info is None:
            return "it is missing"
        if (info.size, f"{info.crc32c:08x}") != (expected.size, expected.crc32c):  # not worth a download
            return difference(expected, expected.model_copy(update={"size": info.size, "crc32c": f"{info.crc32c:08x}"}))
        try:
            return difference(expected, measure(store, info))
        except FileNotFoundError:
            return "it changed while it was read"

    differences = []
    names = sorted(files)
    with progress.phase("verify", len(names), "files") as phase, ThreadPoolExecutor(THREADS, "verify") as pool:
        for name, problem in zip(names, pool.map(compare, names), strict=True):
            if problem is not None:
                differences.append(Difference(name, problem))
            phase.advance()
    return differences


def _compare_provenance(store: Store, files: Mapping[str, PublishedFile]) -> Iterable[Difference]:
    """Yield what provenance.json says and manifest.json does not."""
    stored = store.read(PROVENANCE)
    if stored is None:
        return  # missing: reported with the files
    try:
        statement = json.loads(stored[0])
        types = statement["_type"], statement["predicateType"]
        subjects = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    except (ValueError, KeyError, TypeError) as error:
        yield Difference(PROVENANCE, f"it is no in-toto Statement: {type(error).__name__} {error}")
        return
    if types != (STATEMENT_TYPE, PREDICATE_TYPE):
        yield Difference(PROVENANCE, f"it is a {types[0]} about {types[1]}, expected SLSA provenance v1")
    expected = {name: file.sha256 for name, file in files.items() if name != PROVENANCE}
    for name in sorted(expected.keys() | subjects.keys()):
        if expected.get(name) != subjects.get(name):
            detail = (
                f"its subject {name} has the sha256 {subjects.get(name)}, and manifest.json has {expected.get(name)}"
            )
            yield Difference(PROVENANCE, detail)
