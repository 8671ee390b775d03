"""What a run keeps on its cache volume: features, encoded bytes and decoded pixels, within a budget.

The three are filled in this order. Features make stage 1 cheap and are small, and the encoded bytes are what all else
is made of: a run needs both. Decoded pixels save decoding each image again each epoch, and are the same numbers: they
are kept where ``cache.max_bytes`` allows. All are files, so that memory does not grow with the number of images.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from job import errors, log

if TYPE_CHECKING:
    from job.config import CacheSettings

Array = np.ndarray[Any, Any]


class Cache:
    """The cache of one run. Use it as a context manager: a temporary folder is removed at its end.

    Rows are those of the manifest. Threads may call `put_encoded` at the same time.

    Args:
        settings: where it lies and how large it may grow.
        images: number of rows.
        encoded_bytes: what all images take as they are stored.
        image_size: height and width of the decoded pixels.
        feature_size: length of a feature vector; 0 where no features are wanted.

    Raises:
        errors.DataError: features and encoded bytes do not fit.
        errors.AccessError: the folder cannot be written.

    Attributes:
        folder: where the files are.
        features: float32 [images, feature_size].
        pixels: uint8 [images, image_size, image_size, 3]; None where they do not fit.
    """

    def __init__(
        self, settings: CacheSettings, *, images: int, encoded_bytes: int, image_size: int, feature_size: int
    ) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        try:
            if settings.dir:
                Path(settings.dir).mkdir(parents=True, exist_ok=True)
            self._temporary = tempfile.TemporaryDirectory(prefix="finetune-", dir=settings.dir or None)
        except OSError as error:
            raise errors.AccessError(
                f"cannot write to cache.dir {settings.dir or tempfile.gettempdir()!r} as uid {os.getuid()}: "
                f"{error.strerror}",
                remedy="mount a writable volume there, or set cache.dir to a folder that is writable",
            ) from error
        self.folder = Path(self._temporary.name)
        free = shutil.disk_usage(self.folder).free
        budget = settings.max_bytes if settings.max_bytes is not None else free // 2
        feature_bytes = images * feature_size * 4
        pixel_bytes = images * image_size * image_size * 3
        needed = feature_bytes + encoded_bytes
        if needed > min(budget, free):
            self._temporary.cleanup()
            raise errors.DataError(
                f"the images and their features take {needed:,} bytes, and the cache may hold {min(budget, free):,} "
                f"({self.folder} has {free:,} bytes free)",
                remedy=f"set cache.dir to a volume with room, or cache.max_bytes to at least {needed:,}",
            )
        self.features = Rows(self.folder / "features", np.float32, images, (feature_size,))
        keeps_pixels = pixel_bytes <= min(budget, free) - needed
        size = (image_size, image_size, 3)
        self.pixels = Rows(self.folder / "pixels", np.uint8, images, size) if keeps_pixels else None
        self._encoded = os.open(self.folder / "encoded", os.O_RDWR | os.O_CREAT, 0o600)
        self._offset = np.zeros(images, np.int64)
        self._length = np.zeros(images, np.uint32)
        self._end = 0
        self._lock = threading.Lock()
        log.get().info(
            "cache.opened",
            folder=str(self.folder),
            budget_bytes=budget,
            encoded_bytes=encoded_bytes,
            feature_bytes=feature_bytes,
            pixel_bytes=pixel_bytes,
            pixels_kept=keeps_pixels,
        )

    def put_encoded(self, row: int, data: bytes) -> None:
        """Keep an image's encoded bytes."""
        with self._lock:
            offset, self._end = self._end, self._end + len(data)
        _write(self._encoded, data, offset)
        self._offset[row], self._length[row] = offset, len(data)

    def encoded(self, row: int) -> bytes:
        """Return an image's encoded bytes."""
        return os.pread(self._encoded, int(self._length[row]), int(self._offset[row]))

    def close(self) -> None:
        """Close the files, and remove the folder if it is a temporary one."""
        os.close(self._encoded)
        for rows in filter(None, (self.features, self.pixels)):
            rows.close()
        if self._temporary:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Rows:
    """An array in a file, read and written by rows.

    It is not memory-mapped: mapped pages would count as the process's memory, and writing one on a full disk would end
    the process (SIGBUS).

    Args:
        path: the file, which is made.
        dtype: of the array.
        rows: its first dimension.
        shape: the others.
    """

    def __init__(self, path: Path, dtype: type, rows: int, shape: tuple[int, ...]) -> None:
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._row_bytes = math.prod(shape) * self._dtype.itemsize
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if total := rows * self._row_bytes:
            os.posix_fallocate(self._file, 0, total)

    def __setitem__(self, rows: slice, values: Array) -> None:
        """Write consecutive rows."""
        data = np.ascontiguousarray(values, self._dtype).tobytes()
        _write(self._file, data, rows.start * self._row_bytes)

    def __getitem__(self, rows: Array) -> Array:
        """Return the rows, [n, …], in the order given."""
        values = np.empty((len(rows), *self._shape), self._dtype)
        for value, row in zip(values, rows.tolist(), strict=True):
            os.preadv(self._file, [memoryview(value).cast("B")], row * self._row_bytes)
        return values

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _write(file: int, data: bytes, offset: int) -> None:
    # note: one pwrite may write less than asked, on a full disk above all
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)
