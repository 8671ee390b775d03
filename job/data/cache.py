"""What a run keeps on its cache volume: features, encoded bytes and decoded pixels, within a budget.

The three are filled in this order. Features make stage 1 cheap and are small, and the encoded bytes are what all else
is made of: a run needs both. Decoded pixels save decoding each image again each epoch, and are the same numbers: they
are kept where ``cache.max_bytes`` allows. All are files, so that memory does not grow with the number of images.

Where ``cache.dir`` is set, they outlive a run that was stopped or killed, in a folder of the run's own, and its next
start goes on with them. Every row has a checksum, which is compared whenever it is read: a disk may be damaged, and a
process killed in the middle of a row.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from job import errors, storage
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from job.config.settings import CacheSettings

Part = Literal["encoded", "features", "pixels"]

EXPORT_BYTES = 128 * 2**20
"""Left free where there is little room, since the model is exported to the same disk."""

RECORD = np.dtype([("row", "<u8"), ("offset", "<u8"), ("length", "<u8"), ("crc32c", "<u4"), ("record_crc32c", "<u4")])
"""One image in ``encoded.index``. The last field is the checksum of those before it."""

CHECKSUM_BYTES = 4
"""What a row of features or pixels takes beside itself."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_ACCESS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
)
"""What the next start would be told again; other errors of a disk may be gone by then."""


class Cache:
    """The cache of one run. Use it as a context manager: it is removed at the end of a run that did not fail.

    Rows are those of the manifest. Threads may call `put_encoded` at the same time.

    Args:
        settings: where it lies and how large it may grow.
        run_id: whose it is.
        made_from: each part -> what its content depends on, as plain JSON: what an earlier start left is used again
            where that is the same.
        images: number of rows.
        encoded_bytes: what all images take as they are stored.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0 where no features are wanted.

    Raises:
        errors.DataError: features and encoded bytes do not fit.
        errors.AccessError: the folder cannot be written.
        errors.UnavailableError: the disk fails.

    Attributes:
        folder: where the files are.
        features: float32 [images, feature_size].
        pixels: uint8 [images, image_size, image_size, 3]; None where they do not fit.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        run_id: str,
        made_from: Mapping[Part, Mapping[str, object]],
        images: int,
        encoded_bytes: int,
        image_size: int,
        feature_size: int,
    ) -> None:
        index_bytes = images * RECORD.itemsize
        feature_bytes = images * (feature_size * 4 + CHECKSUM_BYTES) if feature_size else 0
        pixel_bytes = images * (image_size * image_size * 3 + CHECKSUM_BYTES)
        self._needed = feature_bytes + encoded_bytes + index_bytes
        self._dir = settings.dir or tempfile.gettempdir()
        with contextlib.ExitStack() as undo, self._explained():
            self.folder, self._lock_file = _open_folder(settings.dir, f"finetune-{run_id}")
            undo.callback(self._leave, done=False)
            self._forget_what_differs(
                {part: made_from[part] for part in made_from if part != "features" or feature_size}
            )
            held = sum(path.stat().st_blocks * 512 for path in self.folder.iterdir())
            free = shutil.disk_usage(self.folder).free + held
            budget = free // 2 if settings.max_bytes is None else settings.max_bytes
            self._room = min(budget, free)
            if self._needed > self._room:
                raise self._too_large(self._needed, self._room)
            self.features = Rows(self.folder / "features", np.float32, images, (feature_size,))
            undo.callback(self.features.close)
            self._encoded = _Encoded(self.folder, images, encoded_bytes)
            undo.pop_all()
        self._needed += max(0, self._encoded.size - encoded_bytes)  # what an earlier start has unpacked
        self.pixels: Rows | None = None
        room = min(budget, free - EXPORT_BYTES) - self._needed
        if pixel_bytes > room:
            limit = "the budget" if budget <= free - EXPORT_BYTES else "the disk, beside the exported model,"
            note = f"pixels are decoded again each epoch: {limit} has {max(0, room):,} bytes left for them"
        else:
            try:
                self.pixels = Rows(self.folder / "pixels", np.uint8, images, (image_size, image_size, 3))
                note = "pixels are decoded once"
            except OSError as error:  # the disk has less room than it said, and they are not necessary
                note = f"pixels are decoded again each epoch: the disk does not take them: {error.strerror}"
        if self.pixels is None:
            with self._explained():
                (self.folder / "pixels").unlink(missing_ok=True)
                (self.folder / "pixels.crc32c").unlink(missing_ok=True)
        self._beside_encoded = feature_bytes + index_bytes + (pixel_bytes if self.pixels is not None else 0)
        log.get().info(
            "cache.opened",
            folder=str(self.folder),
            budget_bytes=budget,
            free_bytes=free,
            encoded_bytes=encoded_bytes + index_bytes,
            feature_bytes=feature_bytes,
            pixel_bytes=pixel_bytes,
            pixels_kept=self.pixels is not None,
            encoded_found=int(self.has_encoded(np.arange(images)).sum()),
            note=note,
        )

    def put_encoded(self, row: int, data: bytes) -> None:
        """Keep an image's encoded bytes.

        Raises:
            errors.DataError: the budget or the disk is full: images that are stored gzip-encoded take more here.
            errors.UnavailableError: it cannot be written for another reason.
        """
        with self._explained():
            has_room = self._encoded.put(row, data, self._room - self._beside_encoded)
        if not has_room:
            needed = self._beside_encoded + self._encoded.size + len(data)
            raise self._too_large(needed, self._room, so_far=True)

    def encoded(self, row: int) -> bytes | None:
        """Return an image's encoded bytes; None where they are not there, or not as they were written."""
        return self._encoded.get(row)

    def has_encoded(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return of which rows the encoded bytes are there, bool [n]. Nothing is read: they may be damaged."""
        return self._encoded.has(rows)

    def has(self, rows: slice) -> bool:
        """Whether nothing is to be made of these consecutive rows any more: their features and pixels are whole."""
        wanted = np.arange(rows.start, rows.stop)
        return all(bool(part.read(wanted)[1].all()) for part in (self.features, self.pixels) if part is not None)

    def forget_features(self, part: int) -> None:
        """Forget all features, since they are computed again in parts of `part` images."""
        with self._explained():
            self.features.forget()
            made_from = json.loads((self.folder / "made_from.json").read_bytes())
            made_from["features"]["part"] = part
            (self.folder / "made_from.json").write_text(json.dumps(made_from))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._encoded.close()
        self.features.close()
        if self.pixels is not None:
            self.pixels.close()
        self._leave(done=kind is None)

    def _leave(self, *, done: bool) -> None:
        """Remove the folder, unless a later start of the run can use it; let it have the lock."""
        if done or self._lock_file is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock_file is not None:
            os.close(self._lock_file)

    def _forget_what_differs(self, made_from: Mapping[Part, Mapping[str, object]]) -> None:
        """Remove what an earlier start left, but for those parts that are wanted and made from the same."""
        path = self.folder / "made_from.json"
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = {}
        now = json.loads(json.dumps(made_from))
        same = [part for part in now if before.get(part) == now[part]]
        for file in self.folder.iterdir():
            if file.name.partition(".")[0] not in same and file.name != "lock":
                shutil.rmtree(file) if file.is_dir() else file.unlink()
        path.write_text(json.dumps(now))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn an error of the disk into one that says what to do."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_SPACE:  # the disk has less room than it said
                raise self._too_large(self._needed, _free(self._dir)) from error
            if error.errno in _NO_ACCESS:
                raise errors.AccessError(
                    f"cannot write to cache.dir {self._dir!r} as uid {os.getuid()}: {error.strerror}",
                    remedy="mount a writable volume there, or set cache.dir to a folder that is writable",
                ) from error
            raise _unwritable(self._dir, error) from error

    def _too_large(self, needed: int, room: int, *, so_far: bool = False) -> errors.DataError:
        why = " so far (gzip-encoded ones take more unpacked than was listed)" if so_far else ""
        least = f"well above {needed:,}: not all images are unpacked yet" if so_far else f"at least {needed:,}"
        return errors.DataError(
            f"the images and what is made of them take {needed:,} bytes{why}, and the cache may hold {room:,} "
            f"({self._dir} has {_free(self._dir):,} bytes free)",
            remedy=f"set cache.dir to a volume with room, or cache.max_bytes to {least}",
        )


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
            raise _unwritable(self._path, error) from error

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


class _Encoded:
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
        if not self._length[row]:
            return None
        data = _read(self._file, int(self._length[row]), int(self._offset[row]))
        return data if _checksum(data) == self._checksums[row] else None

    def close(self) -> None:
        os.close(self._file)
        os.close(self._index)


def _open_folder(parent: str, name: str) -> tuple[Path, int | None]:
    """Make the folder, or find it; return it with the file whose lock says that it is ours. None: it is a new one.

    A process that was cut off from the cluster, and has not noticed yet that it was superseded, may still work in it.
    """
    if not parent:
        return Path(tempfile.mkdtemp(prefix="finetune-")), None
    folder = Path(parent) / name
    folder.mkdir(parents=True, exist_ok=True)
    lock_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_file)
        log.get().warning("cache.in_use", folder=str(folder), why=error.strerror, note="a new folder is made")
        return Path(tempfile.mkdtemp(prefix="finetune-", dir=parent)), None
    return folder, lock_file


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


def _free(folder: str) -> int:
    """Return the free bytes of a folder's disk; 0 where it does not say."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _unwritable(path: Path | str, error: OSError) -> errors.UnavailableError:
    return errors.UnavailableError(
        f"cannot write to the cache {path}: {error.strerror}",
        remedy="see whether the volume of cache.dir is still mounted, sound and not full",
    )
