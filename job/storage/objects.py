"""The objects of a store, and the protocol that every store implements."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

CHUNK_BYTES = 8 * 2**20
"""Of a large object that are read at once."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The metadata of an object at one generation.

    Attributes:
        name: relative to the store's root, parts separated by ``/``. Never use it as a local path: see ``LocalStore``.
        size: bytes, as stored.
        crc32c: of the stored bytes.
        generation: increases with each write of the name; never 0.
        gzip: whether it is stored with ``Content-Encoding: gzip``. Reading it returns the decompressed bytes.
    """

    name: str
    size: int
    crc32c: int
    generation: int
    gzip: bool = False


class Entry(NamedTuple):
    """What a store has of an object without reading it: bytes as stored, and the generation."""

    size: int
    generation: int


@dataclass(frozen=True, slots=True)
class LostObject:
    """Returned instead of the bytes of an object that no longer matches its listing.

    Attributes:
        reason: ``missing``: it does not exist. ``changed``: its bytes differ.
    """

    reason: Literal["missing", "changed"]

    @property
    def detail(self) -> str:
        """A sentence, for people."""
        return f"the object is {self.reason} since it was listed"


class PreconditionFailed(Exception):  # noqa: N818  # a signal between modules; users never see it
    """The object's generation is not ``if_generation_match``: another process has written it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long a failing request is retried. The only retry policy, for all requests of a store.

    Attributes:
        seconds: from the first try to the last, while the store is unreachable, busy or failing. A service mesh that
            starts after the job takes a fraction of a minute.
        training_seconds: the same once `is_training` is set: a run that ends then gives up its GPU, and the training
            since its last checkpoint.
        is_training: set by the run when it begins to train.
        credential_seconds: while no credentials are issued. GKE's metadata server is unavailable in a new Pod's first
            seconds: https://cloud.google.com/kubernetes-engine/docs/concepts/workload-identity
        damaged_tries: tries whose bytes do not match the store's checksum.
        first_wait: maximum seconds before the second try; doubled for each further try.
        longest_wait: maximum seconds between two tries, unless the store itself requests more (``Retry-After``).
    """

    seconds: float = 120.0
    training_seconds: float = 600.0
    is_training: threading.Event = field(default_factory=threading.Event, compare=False)
    credential_seconds: float = 60.0
    damaged_tries: int = 3
    first_wait: float = 0.5
    longest_wait: float = 5.0

    @property
    def outage_seconds(self) -> float:
        """How long an outage is waited out at present."""
        return self.training_seconds if self.is_training.is_set() else min(self.seconds, self.training_seconds)


FoundFolder: TypeAlias = "Callable[[str], object]"
"""Called with the full name of a folder."""


class Store(Protocol):
    """A folder of objects in a bucket or on a disk. Thread-safe.

    All data read is verified against its crc32c. Any method may raise AccessError (no permission), UnavailableError
    (after all retries; the message names the object and the number of tries) and, if the bucket does not exist,
    DataError.
    """

    uri: str
    """The store's root, without a trailing slash."""

    def uri_of(self, name: str) -> str:
        """Return the full URI of an object."""

    def list(
        self, prefix: str = "", *, recursive: bool = True, found_folder: FoundFolder = str
    ) -> Iterator[ObjectInfo]:
        """Yield the objects below a folder, sorted by name, each with its checksum; none if it does not exist.

        Args:
            prefix: full name of a folder below the root: ``d`` is ``d/…``, never ``d_old/…``.
            recursive: include the folders below that folder.
            found_folder: called with the full name of each folder that is stored as such: a folder of a disk, or the
                empty object that marks one in a bucket.
        """

    def generations(self, prefix: str) -> dict[str, int]:
        """Return full name -> generation of every object below a folder. Needs no checksums."""

    def entries(self, prefix: str) -> dict[str, Entry]:
        """Return full name -> size and generation of every object below a folder. No object is read."""

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the names of the folders directly below a folder, sorted, without the folder's own name.

        One listing by delimiter: what is in the folders is not listed.
        """

    def stat(self, name: str) -> ObjectInfo | None:
        """Return the metadata of an object; None if it does not exist."""

    def updated(self, name: str) -> float | None:
        """Return when an object was written, in seconds since 1970 by the store's clock; None if it does not exist."""

    def stat_many(self, names: Sequence[str]) -> Iterator[tuple[int, ObjectInfo]]:
        """Look up many names with few requests; yield the index and the object of each that exists, in any order.

        Args:
            names: sorted, without duplicates.
        """

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        """Return a small object's bytes and matching metadata; None if it does not exist."""

    def read_many(self, objects: Sequence[ObjectInfo]) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read listed objects in parallel.

        An object that was written again since it was listed is read if its size and checksum are those listed.

        Yields:
            The position in ``objects`` and the bytes, in the order of arrival. Requests wait for the consumer: at most
            64 objects and 256 MiB (or a single larger object) are held at a time. Closing the iterator stops its
            threads.
        """

    def read_listed(self, info: ObjectInfo, closed: threading.Event) -> bytes | LostObject:
        """Read one listed object as `read_many` does, in the caller's thread.

        Args:
            info: as listed.
            closed: once set, the bytes are no longer needed, so there are no more retries.
        """

    def read_heads(
        self, objects: Sequence[ObjectInfo], size: int
    ) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read the first bytes of listed objects in parallel, as `read_many` reads all of them.

        Args:
            objects: those listed.
            size: the number of bytes. A smaller object is read whole, and verified; what is a part cannot be.
        """

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the stored bytes of a listed object in order, at most `CHUNK_BYTES` at once.

        They are not verified: a reader of all of them can compare their checksum with that of ``info``.

        Raises:
            FileNotFoundError: the object was deleted, or overwritten in a bucket, since it was listed.
        """

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Store bytes or a local file under a name, atomically: readers see the old object or the complete new one.

        Args:
            name: an existing object is replaced.
            data: the bytes, or the path of the file.
            if_generation_match: replace only this generation; 0: only create.

        Raises:
            PreconditionFailed: the generation differs. Nothing was written.
        """

    def delete(self, name: str, *, if_generation_match: int | None = None) -> None:
        """Delete an object, if it exists.

        Args:
            name: of the object.
            if_generation_match: delete only this generation.

        Raises:
            PreconditionFailed: the object has another generation. It was not deleted.
        """

    def delete_empty_folder(self, prefix: str) -> None:
        """Delete what marks a folder without objects: the folders on a disk, the empty objects in a bucket."""


def crc32c(data: bytes, start: int = 0) -> int:
    """Return the CRC32C (Castagnoli) of ``data``, as Cloud Storage computes it.

    Args:
        data: the bytes.
        start: checksum of the preceding bytes, to compute one in chunks.
    """
    import google_crc32c  # not imported before there is something to read

    result: int = google_crc32c.extend(start, data)
    return result
