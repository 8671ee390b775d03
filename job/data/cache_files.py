"""The files of a cache: arrays and byte strings, with a checksum per row."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from job import errors, storage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


RECORD = np.dtype([("row", "<u8"), ("offset", "<u8"), ("length", "<u8"), ("crc32c", "<u4"), ("record_crc32c", "<u4")])
"""One image in ``encoded.index``. The last field is the checksum of those before it."""

CHECKSUM_BYTES = 4
"""Overhead per row of features or pixels."""


class Rows:
    """An array in a file, read and written by row, with a checksum per row.

    It is not memory-mapped: mapped pages would count as the process's memory, and writing one on a full disk would kill
    the process (SIGBUS).

    Args:
        path: the file, created if missing. The checksums are stored beside it.
        dtype: of the array.
        rows: its first dimension.
        shape: its other dimensions.

    Raises:
        OSError: the disk has no space for all rows.
    """

    def __init__(self, path: Path, dtype: type, rows: int, shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._row_bytes = math.prod(shape) * self._dtype.itemsize
        size = rows * self._row_bytes
        self._file, self._checksum_file = _open_files(path, path.with_suffix(".crc32c"), size)
        found = _read(self._checksum_file, CHECKSUM_BYTES * rows, 0)
        self._checksums = np.zeros(rows, "<u4")  # note: 0 marks a row that was not written
        self._checksums[: len(found) // 4] = np.frombuffer(found[: len(found) // 4 * 4], "<u4")

    def __setitem__(self, rows: slice, values: NDArray[Any]) -> None:
        """Write consecutive rows.

        Raises:
            errors.UnavailableError: they cannot be written.
        """
        data = np.ascontiguousarray(values, self._dtype).tobytes()
        starts = range(0, len(data), self._row_bytes or 1)
        try:
            _write(self._file, data, rows.start * self._row_bytes)
            checksums = [_checksum(data[start : start + self._row_bytes]) for start in starts]
            if checksums:
                self._checksums[rows] = checksums
                _write(self._checksum_file, self._checksums[rows].tobytes(), rows.start * CHECKSUM_BYTES)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the rows, [n, …], in the order given.

        Raises:
            errors.UnavailableError: a row is damaged.
        """
        values, intact = self.read(rows)
        if not intact.all():
            raise errors.UnavailableError(
                f"{self._path} is damaged: {np.count_nonzero(~intact)} of {len(rows)} rows "
                "are not as they were written",
                remedy="see whether the disk is sound; the next start makes again what is damaged",
            )
        return values

    def read(self, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the rows, [n, …], in the order given, and which of them are intact, bool [n]."""
        values = np.zeros((len(rows), *self._shape), self._dtype)
        intact = np.ones(len(rows), bool)
        for n, row in enumerate(rows.tolist() if self._row_bytes else ()):
            data = _read(self._file, self._row_bytes, row * self._row_bytes)
            intact[n] = len(data) == self._row_bytes and _checksum(data) == self._checksums[row]
            if intact[n]:
                values[n] = np.frombuffer(data, self._dtype).reshape(self._shape)
        return values, intact

    def has(self, rows: slice) -> bool:
        """Whether these consecutive rows were all written. They are not read, so they may be damaged."""
        return bool(self._checksums[rows].all())

    def clear(self) -> None:
        """Mark all rows as not written."""
        self._checksums[:] = 0
        _write(self._checksum_file, self._checksums.tobytes(), 0)

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._checksum_file)


class EncodedFile:
    """Byte strings appended to one file, and their index in another.

    Attributes:
        size: bytes of all strings.
    """

    def __init__(self, folder: Path, rows: int, size: int) -> None:
        self._file, self._index = _open_files(folder / "encoded", folder / "encoded.index", size)
        self._offset = np.zeros(rows, np.int64)
        self._length = np.zeros(rows, np.uint32)  # note: 0 marks a missing row; no image is empty
        self._checksums = np.zeros(rows, np.uint32)
        self._lock = threading.Lock()
        self._records = os.fstat(self._index).st_size // RECORD.itemsize
        found = _records(_read(self._index, self._records * RECORD.itemsize, 0))
        found = found[found["row"] < rows]
        self._offset[found["row"]], self._length[found["row"]] = found["offset"], found["length"]
        self._checksums[found["row"]] = found["crc32c"]
        self._end = int((found["offset"] + found["length"]).max(initial=0))
        self.size = int(self._length.sum(dtype=np.int64))

    def has(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return which rows are present, bool [n]. They are not read, so they may be damaged."""
        present: NDArray[Any] = self._length[rows] > 0
        return present

    def put(self, row: int, data: bytes, limit: int) -> bool:
        """Store a row's bytes if all rows together stay within `limit` bytes; return whether they do."""
        with self._lock:
            old_length = int(self._length[row])
            if self.size - old_length + len(data) > limit:
                return False
            self.size += len(data) - old_length
            offset = int(self._offset[row])
            if len(data) > old_length:  # otherwise they overwrite the damaged bytes
                offset, self._end = self._end, self._end + len(data)
            position, self._records = self._records, self._records + 1
        _write(self._file, data, offset)
        record = np.array([(row, offset, len(data), _checksum(data), 0)], RECORD)
        record["record_crc32c"] = _record_checksum(record.tobytes())
        _write(self._index, record.tobytes(), position * RECORD.itemsize)
        self._offset[row], self._checksums[row] = offset, record["crc32c"][0]
        self._length[row] = len(data)  # note: last, since another thread takes it for present from here on
        return True

    def get(self, row: int) -> bytes | None:
        """Return a row's bytes; None if they are missing or damaged."""
        if not self._length[row]:
            return None
        data = _read(self._file, int(self._length[row]), int(self._offset[row]))
        return data if _checksum(data) == self._checksums[row] else None

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._index)


class Marks:
    """Rows that are marked, a byte a row in a file.

    Args:
        path: the file, created if missing.
        rows: number of rows.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        found = np.frombuffer(_read(self._file, rows, 0), np.uint8)
        self._marked = np.zeros(rows, bool)
        self._marked[: len(found)] = found != 0

    def add(self, row: int) -> None:
        """Mark a row."""
        _write(self._file, b"\1", row)
        self._marked[row] = True

    def __getitem__(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return which rows are marked, bool [n]."""
        marked: NDArray[Any] = self._marked[rows]
        return marked

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _checksum(data: bytes) -> int:
    """Return the CRC32C, with 0 replaced by 1: 0 means "not written"."""
    return storage.crc32c(data) or 1


def _records(data: bytes) -> NDArray[Any]:
    """Return the intact records. A process killed while writing leaves zeros, or part of a record."""
    found = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)
    starts = range(0, found.nbytes, RECORD.itemsize)
    checksums = (_record_checksum(data[start : start + RECORD.itemsize]) for start in starts)
    intact: NDArray[Any] = found[np.fromiter(checksums, np.uint32, len(found)) == found["record_crc32c"]]
    return intact


def _record_checksum(record: bytes) -> int:
    return _checksum(record[: -RECORD["record_crc32c"].itemsize])


def _open_files(path: Path, companion: Path, size: int) -> tuple[int, int]:
    """Open two files, creating them if missing, and allocate the first, so that a full disk is detected early.

    Raises:
        OSError: there is no space. The allocation is undone.
    """
    with contextlib.ExitStack() as undo:
        files = []
        for name in (path, companion):
            files.append(os.open(name, os.O_RDWR | os.O_CREAT, 0o600))
            undo.callback(os.close, files[-1])
        if size:
            undo.callback(os.ftruncate, files[0], os.fstat(files[0]).st_size)
            os.posix_fallocate(files[0], 0, size)
        undo.pop_all()
    return files[0], files[1]


def _read(file: int, size: int, offset: int) -> bytes:
    """Read; empty if the disk fails, which is damage like any other: no checksum will match."""
    try:
        return os.pread(file, size, offset)
    except OSError:
        return b""


def _write(file: int, data: bytes, offset: int) -> None:
    # note: a single pwrite may write less than requested, above all on a full disk
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def unwritable(path: Path | str, error: OSError) -> errors.UnavailableError:
    """Return the error for a cache that cannot be written to."""
    return errors.UnavailableError(
        f"cannot write to the cache {path}: {error.strerror}",
        remedy="see whether the volume of cache.dir is still mounted, sound and not full",
    )
