"""What a store holds, and the protocol that every store follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object, as it was at one moment.

    Attributes:
        name: relative to the store's root, parts separated by ``/``. Never a local path: see ``LocalStore``.
        size: bytes, as stored.
        crc32c: of the bytes as stored.
        generation: which writing of this name it is. Grows with each; never 0.
        gzip: it is stored with ``Content-Encoding: gzip``. Reading it gives the bytes inside.
    """

    name: str
    size: int
    crc32c: int
    generation: int
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class LostObject:
    """What is read in the place of an object that is not there any more as it was listed.

    Attributes:
        reason: ``missing``: the name is gone. ``changed``: it has other bytes, or is of another generation.
    """

    reason: Literal["missing", "changed"]


class PreconditionFailed(Exception):  # noqa: N818  # an answer between modules, not an error that a user sees
    """The object is not of the generation that ``if_generation_match`` named: somebody else has written it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """For how long a request that fails is tried again. The one policy for all requests of a store.

    Attributes:
        seconds: for a store that is away, busy or in trouble, from the first try to the last. A service mesh that
            comes up after the job takes some of a minute.
        credential_seconds: for credentials that are not given out. GKE's metadata server is not there in a new Pod's
            first seconds: https://cloud.google.com/kubernetes-engine/docs/concepts/workload-identity
        damaged_tries: how often bytes may arrive that are not those the store has a checksum of.
        first_wait: the most seconds before the second try; twice as many before the next, and so on.
        longest_wait: the most seconds between two tries, unless the store itself asks for more (``Retry-After``).
    """

    seconds: float = 120.0
    credential_seconds: float = 60.0
    damaged_tries: int = 3
    first_wait: float = 0.5
    longest_wait: float = 5.0


class Store(Protocol):
    """A folder of objects in a bucket or on a disk. Every method may be called from any thread.

    Every byte read is compared with its crc32c. Any method may raise AccessError (no permission), UnavailableError
    (after all retries; the message names the object and the number of tries) and, where a bucket does not exist,
    DataError.
    """

    uri: str
    """Where the store lies, without a slash at the end."""

    def uri_of(self, name: str) -> str:
        """Return the whole URI of an object."""

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the objects below a folder, sorted by name. A folder that does not exist has none.

        Args:
            prefix: a folder below the root, by its whole name: ``d`` is ``d/…``, never ``d_old/…``.
            recursive: also what lies in folders below that folder.
        """

    def stat(self, name: str) -> ObjectInfo | None:
        """Return what is stored under a name, None where there is nothing."""

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        """Return a small object's bytes and what it was when they were read, None where there is nothing."""

    def read_many(self, objects: Sequence[ObjectInfo]) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read listed objects, many at once, each at the generation in its listing.

        Yields:
            The position in ``objects`` and the bytes, in the order in which they arrive. As long as nothing is taken,
            nothing is requested: at most 64 objects and, beyond a single larger one, 256 MiB are held at a time.
            Closing the iterator ends its threads.
        """

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Store bytes, or a local file's, under a name. Readers see the old object or the whole new one.

        Args:
            name: what is there under this name is replaced.
            data: the bytes, or the file that holds them.
            if_generation_match: write only over this generation; 0: only where nothing is.

        Raises:
            PreconditionFailed: another generation is there. Nothing was written.
        """

    def delete(self, name: str) -> None:
        """Remove an object. One that is not there is no error."""


def crc32c(data: bytes, start: int = 0) -> int:
    """Return the CRC32C (Castagnoli) of ``data``, as Cloud Storage computes it.

    Args:
        data: the bytes.
        start: the checksum of what stands before them, where they are one piece of many.
    """
    import google_crc32c  # not before there is something to read

    result: int = google_crc32c.extend(start, data)
    return result
