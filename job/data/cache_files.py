"""The files of a cache: arrays by rows and byte strings, with a checksum of each row."""

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
"""What a row of features or pixels takes beside itself."""


class Rows:
    """An array in a file, read and written by rows, with a checksum of each.

    It is not memory-mapped: mapped pages would count as the process's memory, and writing one on a full disk would end
    the process (SIGBUS).

    Args:
        path: the file, which is made unless it is there. The checksums lie beside it.
        dtype: of the array.
        rows: its first dimension.
        shape: the others.

    Raises:
        OSError: the disk has no room for all rows.
    """

    def __init__(self, path: Path, dtype: type, rows: int, shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._row_bytes = math.prod(shape) * self._dtype.itemsize
        size = rows * self._row_bytes
        self._file, self._checksum_file = _open_files(path, path.with_suffix(".crc32c"), size)
        found = _read(self._checksum_file, CHECKSUM_BYTES * rows, 0)
        self._checksums = np.zeros(rows, "<u4")  # note: 0 is a row that was not written
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
            errors.UnavailableError: one of them is not as it was written.
        """
        values, whole = self.read(rows)
        if not whole.all():
            raise errors.UnavailableError(
                f"{self._path} is damaged: {np.count_nonzero(~whole)} of {len(rows)} rows are not as they were written",
                remedy="see whether the disk is sound; the next start makes again what is damaged",
            )
        return values

    def read(self, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the rows, [n, …], in the order given, and which of them are as they were written, bool [n]."""
        values = np.zeros((len(rows), *self._shape), self._dtype)
        whole = np.ones(len(rows), bool)
        for n, row in enumerate(rows.tolist() if self._row_bytes else ()):
            data = _read(self._file, self._row_bytes, row * self._row_bytes)
            whole[n] = len(data) == self._row_bytes and _checksum(data) == self._checksums[row]
            if whole[n]:
                values[n] = np.frombuffer(data, self._dtype).reshape(self._shape)
        return values, whole

    def written(self, rows: slice) -> bool:
        """Whether these consecutive rows were all written. Nothing is read: they may be damaged."""
        return bool(self._checksums[rows].all())

    def forget(self) -> None:
        """Forget what was written."""
        self._checksums[:] = 0
        _write(self._checksum_file, self._checksums.tobytes(), 0)

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._checksum_file)


class EncodedFile:
    """Byte strings one after the other in a file, and where each lies in another.

    Attributes:
        size: bytes of all strings.
    """

    def __init__(self, folder: Path, rows: int, size: int) -> None:
        self._file, self._index = _open_files(folder / "encoded", folder / "encoded.index", size)
        self._offset = np.zeros(rows, np.int64)
        self._length = np.zeros(rows, np.uint32)  # note: 0 is a row that is not there; no image is empty
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
        """Return which rows are there, bool [n]. Nothing is read: they may be damaged."""
        present: NDArray[Any] = self._length[rows] > 0
        return present

    def put(self, row: int, data: bytes, room: int) -> bool:
        """Keep a row's bytes; return whether all rows' together fit into the room: else nothing is written."""
        with self._lock:
            before = int(self._length[row])
            if self.size - before + len(data) > room:
                return False
            self.size += len(data) - before
            offset = int(self._offset[row])
            if len(data) > before:  # else they take the place of those that are damaged
                offset, self._end = self._end, self._end + len(data)
            position, self._records = self._records, self._records + 1
        _write(self._file, data, offset)
        record = np.array([(row, offset, len(data), _checksum(data), 0)], RECORD)
        record["record_crc32c"] = _record_checksum(record.tobytes())
        _write(self._index, record.tobytes(), position * RECORD.itemsize)
        self._offset[row], self._length[row], self._checksums[row] = offset, len(data), record["crc32c"][0]
        return True

    def get(self, row: int) -> bytes | None:
        """Return a row's bytes, None where they are missing or damaged."""
        if not self._length[row]:
            return None
        data = _read(self._file, int(self._length[row]), int(self._offset[row]))
        return data if _checksum(data) == self._checksums[row] else None

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._index)


def _checksum(data: bytes) -> int:
    """Return the CRC32C, and 1 where that is 0, which means that nothing was written."""
    return storage.crc32c(data) or 1


def _records(data: bytes) -> NDArray[Any]:
    """Return the records that are as they were written. A process killed there leaves zeros, or a part of one."""
    found = np.frombuffer(data, RECORD, len(data) // RECORD.itemsize)
    starts = range(0, found.nbytes, RECORD.itemsize)
    checksums = (_record_checksum(data[start : start + RECORD.itemsize]) for start in starts)
    whole: NDArray[Any] = found[np.fromiter(checksums, np.uint32, len(found)) == found["record_crc32c"]]
    return whole


def _record_checksum(record: bytes) -> int:
    return _checksum(record[: -RECORD["record_crc32c"].itemsize])


def _open_files(path: Path, beside: Path, size: int) -> tuple[int, int]:
    """Open two files; make those that are not there, and take space for the first, so that a full disk is known early.

    Raises:
        OSError: there is no room. What was taken is free again.
    """
    with contextlib.ExitStack() as undo:
        files = []
        for name in (path, beside):
            files.append(os.open(name, os.O_RDWR | os.O_CREAT, 0o600))
            undo.callback(os.close, files[-1])
        if size:
            undo.callback(os.ftruncate, files[0], os.fstat(files[0]).st_size)
            os.posix_fallocate(files[0], 0, size)
        undo.pop_all()
    return files[0], files[1]


def _read(file: int, size: int, offset: int) -> bytes:
    """Read; nothing where the disk fails, which is damage like any other: no checksum will fit."""
    try:
        return os.pread(file, size, offset)
    except OSError:
        return b""


def _write(file: int, data: bytes, offset: int) -> None:
    # note: one pwrite may write less than asked, on a full disk above all
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def unwritable(path: Path | str, error: OSError) -> errors.UnavailableError:
    """Return the error for a cache that cannot be written to."""
    return errors.UnavailableError(
        f"cannot write to the cache {path}: {error.strerror}",
        remedy="see whether the volume of cache.dir is still mounted, sound and not full",
    )
