"""A folder on a local disk or a mounted volume, with the semantics of a bucket.

A file's generation is its modification time in nanoseconds; every write increases it, even with a coarse clock or file
system. Its crc32c is computed by reading it. Links are followed, and a linked file has the link's name.
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

from job import uri
from job.errors import AccessError, DataError, FinetuneError, SettingsError, UnavailableError
from job.observability import log
from job.storage.lookup import stat_each
from job.storage.objects import Entry, LostObject, ObjectInfo, PreconditionFailed, crc32c
from job.storage.parallel import THREADS, in_parallel

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator, Sequence

    from job.storage.objects import FoundFolder

RESERVED_PREFIX = ".finetune-"
"""Prefix of this module's temporary and lock files, which are never listed."""

CHUNK_BYTES = 1024**2

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP})
"""Errors that mean that a file does not exist, or cannot exist."""


class LocalStore:
    """A folder and the files below it.

    Names are untrusted: they come from users and manifests. One that leads out of the folder (``..``, an absolute path)
    is rejected; links inside the folder are trusted.

    Args:
        folder: its absolute path. It is created by the first write.
    """

    def __init__(self, folder: str) -> None:
        self.uri = folder

    def uri_of(self, name: str) -> str:
        """Return the full path of an object."""
        return f"{self.uri.rstrip('/')}/{name}"

    def list(
        self, prefix: str = "", *, recursive: bool = True, found_folder: FoundFolder = str
    ) -> Iterator[ObjectInfo]:
        """Yield the files below a folder; see Store. Each is read once, to compute its checksum."""
        prefix = prefix.strip("/")
        folder = str(self._path(prefix)) if prefix else self.uri
        names = _walk(
            folder,
            f"{prefix}/" if prefix else "",
            (os.path.realpath(folder),),
            recursive=recursive,
            found_folder=found_folder,
        )
        skipped = []
        with ThreadPoolExecutor(THREADS) as pool:
            # The first batch is small: who needs only one file does not wait for a thousand checksums.
            for size in itertools.chain([THREADS], itertools.repeat(1024)):
                if not (batch := tuple(itertools.islice(names, size))):
                    break
                for name, info in zip(batch, pool.map(self.stat, batch), strict=True):
                    if info is None:
                        skipped.append(name)
                    else:
                        yield info
        if skipped:
            reason = "a link to nothing, or no regular file"
            log.get().warning(
                "storage.files_skipped", folder=folder, files=len(skipped), first=skipped[0], reason=reason
            )

    def generations(self, prefix: str) -> dict[str, int]:
        """Return the generation of every file below a folder; see Store. No file is read."""
        return {name: entry.generation for name, entry in self.entries(prefix).items()}

    def entries(self, prefix: str) -> dict[str, Entry]:
        """Return size and generation of every file below a folder; see Store."""
        prefix = prefix.strip("/")
        folder = str(self._path(prefix)) if prefix else self.uri
        found = {}
        for name in _walk(folder, f"{prefix}/" if prefix else "", (os.path.realpath(folder),), recursive=True):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                status = self._path(name).stat()
                found[name] = Entry(status.st_size, status.st_mtime_ns)
        return found

    def folders(self, prefix: str) -> Sequence[str]:
        """Return the folders directly below a folder; see Store. One without any file is none."""
        path = self._path(prefix) if prefix else Path(self.uri)
        with _errors_converted(path, "list"):
            try:
                with os.scandir(path) as entries:
                    names = sorted(entry.name for entry in entries if _is_folder(entry))
            except OSError as error:
                if error.errno in _ABSENT:
                    return []
                raise
        return [name for name in names if _has_file(path / name)]

    def stat(self, name: str) -> ObjectInfo | None:
        """Return the metadata of a file; see Store. It is read, to compute its checksum."""
        path = self._path(name)
        if (file := _open(path)) is None:
            return None
        with file, _errors_converted(path, "read"):
            checksum = 0
            while chunk := file.read(CHUNK_BYTES):
                checksum = crc32c(chunk, checksum)
            return ObjectInfo(name, file.tell(), checksum, os.fstat(file.fileno()).st_mtime_ns)

    def updated(self, name: str) -> float | None:
        """Return when a file was written; see Store."""
        path = self._path(name)
        with _errors_converted(path, "read"):
            return path.stat().st_mtime if path.exists() else None

    def stat_many(self, names: Sequence[str]) -> Iterator[tuple[int, ObjectInfo]]:
        """See `Store`. A listing would read every file of a folder for its checksum."""
        return stat_each(self, names, range(len(names)))

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        """Return a file's bytes and matching metadata; see Store."""
        path = self._path(name)
        if (file := _open(path)) is None:
            return None
        with file, _errors_converted(path, "read"):
            data = file.read()
            return data, ObjectInfo(name, len(data), crc32c(data), os.fstat(file.fileno()).st_mtime_ns)

    def read_many(self, objects: Sequence[ObjectInfo]) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read listed files; see Store.

        A disk keeps no generations: a file counts as changed if its bytes differ, not if it was only touched.
        """
        return in_parallel(self.read_listed, objects)

    def read_listed(self, info: ObjectInfo, _: threading.Event) -> bytes | LostObject:
        """Read one listed file; see Store."""
        found = self.read(info.name)
        if found is None:
            return LostObject("missing")
        data, current = found
        return data if (current.size, current.crc32c) == (info.size, info.crc32c) else LostObject("changed")

    def read_heads(
        self, objects: Sequence[ObjectInfo], size: int
    ) -> Generator[tuple[int, bytes | LostObject], None, None]:
        """Read the first bytes of listed files; see Store."""

        def read(info: ObjectInfo, closed: threading.Event) -> bytes | LostObject:
            if info.size <= size:
                return self.read_listed(info, closed)
            path = self._path(info.name)
            if (file := _open(path)) is None:
                return LostObject("missing")
            with file, _errors_converted(path, "read"):
                return file.read(size)

        return in_parallel(read, objects)

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the bytes of a file; see Store."""
        path = self._path(info.name)
        if (file := _open(path)) is None:
            raise FileNotFoundError(str(path))
        with file, _errors_converted(path, "read"):
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Store bytes or a file under a name; see Store.

        The condition is atomic between processes on every file system that supports flock.
        """
        path = self._path(name)
        with _errors_converted(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{RESERVED_PREFIX}{uuid.uuid4().hex}.tmp")
            try:
                size, checksum = _write_synced(temporary, data)
                with contextlib.nullcontext() if if_generation_match is None else _locked(path.parent):
                    existing = path.stat().st_mtime_ns if path.exists() else 0
                    if if_generation_match not in (None, existing):
                        raise PreconditionFailed(str(path))
                    generation = _advance_mtime(temporary, existing)
                    temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        return ObjectInfo(name, size, checksum, generation)

    def delete(self, name: str, *, if_generation_match: int | None = None) -> None:
        """Delete a file; see Store."""
        path = self._path(name)
        lock = contextlib.nullcontext() if if_generation_match is None else _locked(path.parent)
        with _errors_converted(path, "delete"), contextlib.suppress(FileNotFoundError), lock:
            if if_generation_match not in (None, path.stat().st_mtime_ns):
                raise PreconditionFailed(str(path))
            path.unlink()

    def delete_empty_folder(self, prefix: str) -> None:
        """Delete a folder and those below it, if they have no file; see Store."""
        for folder, _, _ in os.walk(self._path(prefix), topdown=False):
            with contextlib.suppress(OSError):  # it has a file, or another process writes one
                Path(folder).rmdir()

    def _path(self, name: str) -> Path:
        if "\0" in name or {"", ".", ".."}.intersection(name.split("/")):
            raise DataError(
                f"{name!r} cannot be the name of a file in {self.uri}",
                remedy="Give a path below that folder, without '..', '.' and empty parts.",
            )
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            problem = uri.locale_problem(name) or f"{name!r} is not Unicode text"
            raise SettingsError(problem, remedy=uri.LOCALE_REMEDY) from error
        return Path(self.uri_of(name))


def _walk(
    folder: str, prefix: str, real_paths: tuple[str, ...], *, recursive: bool, found_folder: FoundFolder = str
) -> Iterator[str]:
    """Yield the names below ``folder``, sorted like a bucket's: by full name.

    Args:
        folder: its path.
        prefix: its name in the store, with a trailing slash.
        real_paths: real path of the folder, preceded by that of each link followed to reach it.
        recursive: include the folders below it.
        found_folder: see Store.list.
    """
    with _errors_converted(Path(folder), "list"):
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
            if not entry.startswith(RESERVED_PREFIX):
                yield prefix + entry
        elif recursive:
            if not os.path.islink(path):  # noqa: PTH114
                inner = (*real_paths[:-1], os.path.join(real_paths[-1], entry.rstrip("/")))  # noqa: PTH118
            else:
                target = os.path.realpath(path)
                if any(os.path.commonpath([target, visited]) == target for visited in real_paths):
                    log.get().warning("storage.folder_skipped", folder=path, reason="a link to a folder it lies in")
                    continue
                inner = (*real_paths, target)
            found_folder(f"{prefix}{entry}".removesuffix("/"))
            yield from _walk(path, f"{prefix}{entry}", inner, recursive=True, found_folder=found_folder)


def _has_file(folder: Path) -> bool:
    """Return whether a file is in a folder or below it; what cannot be listed counts as one."""
    try:
        return next(_walk(str(folder), "", (os.path.realpath(folder),), recursive=True), None) is not None
    except FinetuneError:
        return True


def _open(path: Path) -> IO[bytes] | None:
    """Open a regular file, following links; None if it does not exist."""
    with _errors_converted(path, "read"):
        try:
            # Checked first: opening a pipe blocks until something writes to it.
            return path.open("rb") if stat.S_ISREG(path.stat().st_mode) else None
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # entry.is_dir() alone raises if a link leads to an inaccessible place.
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path))  # noqa: PTH112


def _write_synced(path: Path, data: bytes | Path) -> tuple[int, int]:
    """Write a new file and fsync it; return its size and crc32c."""
    checksum = 0
    with path.open("xb") as file:
        if isinstance(data, bytes):
            file.write(data)
            checksum = crc32c(data)
        else:
            with data.open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    file.write(chunk)
                    checksum = crc32c(chunk, checksum)
        file.flush()
        os.fsync(file.fileno())
        return file.tell(), checksum


def _advance_mtime(path: Path, generation: int) -> int:
    """Make a file's modification time later than ``generation``, and return it."""
    current = path.stat().st_mtime_ns
    # The clock ticks in milliseconds, and some file systems store times in steps of two seconds.
    for step in (1, 2 * 10**9):
        if current <= generation:
            os.utime(path, ns=(generation + step, generation + step))
            current = path.stat().st_mtime_ns
    return current


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock against all processes that use this module."""
    path = folder / f"{RESERVED_PREFIX}lock"
    while True:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # The previous holder may have removed the file while we waited: then it locks nothing.
            if not _is_same_file(file, path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _errors_converted(path: Path, action: str) -> Iterator[None]:
    """Convert OSError to the errors of this package."""
    try:
        yield
    except OSError as error:
        raise _convert_error(error, path, action) from error


def _convert_error(error: OSError, path: Path, action: str) -> FinetuneError:
    text = f"cannot {action} {str(path)!r}: {error.strerror}"
    match error.errno:
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return AccessError(
                f"{text} (as user id {os.geteuid()})",
                remedy="Give that user access to it (chown, chmod; in Kubernetes securityContext.fsGroup), "
                "or name a place that it may use.",
            )
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR | errno.ENAMETOOLONG:
            return SettingsError(text, remedy="Name a folder: here a file stands in its place, or a name is too long.")
        case errno.ENOSPC | errno.EDQUOT:
            return UnavailableError(text, remedy="Free some space there, or use a larger volume.")
        case _:
            return UnavailableError(text, remedy="See to the disk or the mount, then start the job again.")
