"""A folder on a local disk or a mounted volume, with the semantics of a bucket.

A file's generation is the time it was last modified, in nanoseconds; a write makes it grow even where the clock or
the file system is coarse. Its crc32c is computed by reading it. Links are followed, and a file behind a link is called
by the link's name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

from job.errors import AccessError, DataError, FinetuneError, SettingsError, UnavailableError
from job.observability import log
from job.storage.objects import LostObject, ObjectInfo, PreconditionFailed, crc32c
from job.storage.parallel import THREADS, in_parallel

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator, Sequence

OWN = ".finetune-"
"""How the names of this module's temporary and lock files begin. They are never listed."""

PIECE = 1024**2

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""What the system answers where there is no such file, or cannot be one."""


class LocalStore:
    """A folder and what lies in it.

    Names come from people and manifests. One that would lead out of the folder (``..``, an absolute path) is refused;
    links inside it are their owner's will.

    Args:
        folder: its absolute path. It is made at the first write.
    """

    def __init__(self, folder: str) -> None:
        self.uri = folder

    def uri_of(self, name: str) -> str:
        """Return the whole path of an object."""
        return f"{self.uri.rstrip('/')}/{name}"

    def list(self, prefix: str = "", *, recursive: bool = True) -> Iterator[ObjectInfo]:
        """Yield the files below a folder; see Store. Each is read once, for its checksum."""
        prefix = prefix.strip("/")
        folder = str(self._path(prefix)) if prefix else self.uri
        names = _walk(folder, f"{prefix}/" if prefix else "", (os.path.realpath(folder),), recursive=recursive)
        skipped = []
        with ThreadPoolExecutor(THREADS) as pool:
            while some := tuple(itertools.islice(names, 1024)):
                for name, info in zip(some, pool.map(self.stat, some), strict=True):
                    if info is None:
                        skipped.append(name)
                    else:
                        yield info
        if skipped:
            reason = "a link to nothing, or no regular file"
            log.get().warning(
                "storage.files_skipped", folder=folder, files=len(skipped), first=skipped[0], reason=reason
            )

    def stat(self, name: str) -> ObjectInfo | None:
        """Return what is stored under a name; see Store. The file is read, for its checksum."""
        path = self._path(name)
        if (file := _opened(path)) is None:
            return None
        with file, _explained(path, "read"):
            checksum = 0
            while piece := file.read(PIECE):
                checksum = crc32c(piece, checksum)
            return ObjectInfo(name, file.tell(), checksum, os.fstat(file.fileno()).st_mtime_ns)

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        """Return a file's bytes and what it was when they were read; see Store."""
        path = self._path(name)
        if (file := _opened(path)) is None:
            return None
        with file, _explained(path, "read"):
            data = file.read()
            return data, ObjectInfo(name, len(data), crc32c(data), os.fstat(file.fileno()).st_mtime_ns)

    def read_many(self, objects: Sequence[ObjectInfo]) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read listed files; see Store.

        A disk keeps no generations: a file counts as changed when its bytes are others, not when it was only touched.
        """
        return in_parallel(self._read_listed, objects)

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Store bytes or a file under a name; see Store.

        The condition holds between processes, on every file system that has flock.
        """
        path = self._path(name)
        with _explained(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{OWN}{uuid.uuid4().hex}.tmp")
            try:
                size, checksum = _fill(temporary, data)
                with contextlib.nullcontext() if if_generation_match is None else _locked(path.parent):
                    before = path.stat().st_mtime_ns if path.exists() else 0
                    if if_generation_match not in (None, before):
                        raise PreconditionFailed(str(path))
                    generation = _make_later(temporary, before)
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return ObjectInfo(name, size, checksum, generation)

    def delete(self, name: str) -> None:
        """Remove a file; see Store."""
        with _explained(path := self._path(name), "delete"):
            path.unlink(missing_ok=True)

    def _read_listed(self, info: ObjectInfo, _: threading.Event) -> bytes | LostObject:
        found = self.read(info.name)
        if found is None:
            return LostObject("missing")
        data, now = found
        return data if (now.size, now.crc32c) == (info.size, info.crc32c) else LostObject("changed")

    def _path(self, name: str) -> Path:
        if "\0" in name or {"", ".", ".."}.intersection(name.split("/")):
            raise DataError(
                f"{name!r} cannot be the name of a file in {self.uri}",
                remedy="Give a path below that folder, without '..', '.' and empty parts.",
            )
        return Path(self.uri_of(name))


def _walk(folder: str, prefix: str, real: tuple[str, ...], *, recursive: bool) -> Iterator[str]:
    """Yield the names of what lies below ``folder``, sorted as a bucket sorts: by the whole name.

    Args:
        folder: its path.
        prefix: its name in the store, with a slash at the end.
        real: where the walk really is, links followed, after where it was at each link it followed to get here.
        recursive: also below folders.
    """
    with _explained(Path(folder), "list"):
        try:
            with os.scandir(folder) as entries:
                found = sorted(f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries)
        except OSError as error:
            if error.errno in _ABSENT:
                return
            if isinstance(error, PermissionError) and folder.endswith("/lost+found"):
                log.get().warning("storage.folder_skipped", folder=folder, reason="not readable, and no data")
                return
            raise
    for entry in found:
        path = os.path.join(folder, entry.rstrip("/"))  # noqa: PTH118  # a million of them
        if not entry.endswith("/"):
            if not entry.startswith(OWN):
                yield prefix + entry
        elif recursive:
            if not os.path.islink(path):  # noqa: PTH114
                inner = (*real[:-1], os.path.join(real[-1], entry.rstrip("/")))  # noqa: PTH118
            else:
                target = os.path.realpath(path)
                if any(os.path.commonpath([target, place]) == target for place in real):
                    log.get().warning("storage.folder_skipped", folder=path, reason="a link to a folder it lies in")
                    continue
                inner = (*real, target)
            yield from _walk(path, f"{prefix}{entry}", inner, recursive=True)


def _opened(path: Path) -> IO[bytes] | None:
    """Open a regular file, whatever links lead to it; None where there is none."""
    with _explained(path, "read"):
        try:
            # Asked first: opening a pipe waits for somebody to write into it.
            return path.open("rb") if stat.S_ISREG(path.stat().st_mode) else None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # entry.is_dir() alone raises where a link leads to a place that may not be looked at.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def _fill(path: Path, data: bytes | Path) -> tuple[int, int]:
    """Write a new file to the disk itself; return its size and crc32c."""
    checksum = 0
    with path.open("xb") as file:
        if isinstance(data, bytes):
            file.write(data)
            checksum = crc32c(data)
        else:
            with data.open("rb") as source:
                while piece := source.read(PIECE):
                    file.write(piece)
                    checksum = crc32c(piece, checksum)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), checksum


def _make_later(path: Path, generation: int) -> int:
    """Make a file's time later than ``generation``, and return it."""
    now = path.stat().st_mtime_ns
    # The clock's tick is milliseconds, and some file systems keep no more than every second second.
    for step in (1, 2 * 10**9):
        if now <= generation:
            os.utime(path, ns=(generation + step, generation + step))
            now = path.stat().st_mtime_ns
    return now


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, for all processes that use this module."""
    path = folder / f"{OWN}lock"
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The holder before may have removed the file that was waited for: then it locks nothing any more.
            if not _is_at(file, path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _explained(path: Path, action: str) -> Iterator[None]:
    """Tell the system's errors in our own terms."""
    try:
        yield
    except OSError as error:
        raise _told(error, path, action) from error


def _told(error: OSError, path: Path, action: str) -> FinetuneError:
    what = f"cannot {action} {str(path)!r}: {error.strerror}"
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return AccessError(
                f"{what} (as user id {os.geteuid()})",
                remedy="Give that user access to it (chown, chmod; in Kubernetes securityContext.fsGroup), "
                "or name a place that it may use.",
            )
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ENAMETOOLONG:
            return SettingsError(what, remedy="Name a folder: here a file stands in its place, or a name is too long.")
        case errno.ENOSPC | errno.EDQUOT:
            return UnavailableError(what, remedy="Free some space there, or use a larger volume.")
        case _:
            return UnavailableError(what, remedy="See to the disk or the mount, then start the job again.")
