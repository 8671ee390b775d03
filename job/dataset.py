"""The pass over the data, and the batches that training and scoring read.

The pass downloads, checks and decodes every image once; downloads end in any order, and what is computed from them does
not depend on it: batches are fixed ranges of the manifest's rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from job import decode, errors, images, log, storage
from job.manifest import Manifest, Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.cache import Cache
    from job.progress import Progress

Array = np.ndarray[Any, Any]

RANGE = 32
"""Rows of the manifest decoded and fed to the base model together. A part of the recipe: the bits of a feature depend
on the size of its batch, so this is a constant and no setting."""


class Dataset:
    """The images of a run, by their row in the manifest.

    Args:
        manifest: what was listed.
        cache: where bytes and pixels are kept.
        image_size: height and width of the decoded pixels.
        max_pixels: an image of more is not decoded.
        threads: how many images are decoded at the same time.
        wanted: bool [images], those to read; all by default. None of them may be missing or unreadable then: an
            earlier start has read them.
        user_project: who pays for the requests, where a bucket is requester-pays.

    Attributes:
        quarantined: the images that cannot be used, and why. Complete after the pass.
        usable: bool [images]. Complete after the pass.
    """

    def __init__(
        self,
        manifest: Manifest,
        cache: Cache,
        *,
        image_size: int,
        max_pixels: int,
        threads: int,
        wanted: Array | None = None,
        user_project: str = "",
    ) -> None:
        self.manifest = manifest
        self.image_size = image_size
        self.quarantined: list[Quarantined] = []
        self.usable = np.zeros(len(manifest), bool)
        self._cache = cache
        self._max_pixels = max_pixels
        self._threads = threads
        self._is_final = wanted is not None
        self._wanted = np.ones(len(manifest), bool) if wanted is None else wanted
        self._user_project = user_project or None
        self._pool = ThreadPoolExecutor(threads, "decode")

    def ingest(self, progress: Progress) -> Iterator[tuple[slice, Array]]:
        """Download, check and decode every image; yield each range of rows as soon as it is complete.

        A generator: the pass is done when it is exhausted. An image that cannot be used leaves zeros behind.

        Yields:
            The rows, and their pixels: uint8 [RANGE, image_size, image_size, 3], the last range filled up with zeros.

        Raises:
            errors.DataError: an image that an earlier start has read cannot be read now.
            errors.UnavailableError: the store did not answer, after all retries.
        """
        count = len(self.manifest)
        ranges: dict[int, Array] = {}
        starts, images = np.unique(np.flatnonzero(self._wanted) // RANGE * RANGE, return_counts=True)
        missing = dict(zip(starts.tolist(), images.tolist(), strict=True))
        with progress.phase("ingest", int(self._wanted.sum()), "images") as phase:
            for row, pixels in self._decoded():
                start = row - row % RANGE
                if start not in ranges:
                    ranges[start] = np.zeros((RANGE, self.image_size, self.image_size, 3), np.uint8)
                if pixels is not None:
                    ranges[start][row - start] = pixels
                    self.usable[row] = True
                missing[start] -= 1
                phase.advance()
                if not missing[start]:
                    del missing[start]
                    rows = slice(start, min(start + RANGE, count))
                    complete = ranges.pop(start)
                    if self._cache.pixels is not None:
                        self._cache.pixels[rows] = complete[: rows.stop - start]
                    yield rows, complete
        self.quarantined.sort(key=lambda image: image.uri)

    def encoded(self, row: int) -> bytes:
        """Return an image's bytes as they were stored."""
        return self._cache.encoded(row)

    def pixels(self, rows: Array) -> Array:
        """Return the pixels of the rows, uint8 [n, image_size, image_size, 3]: kept ones, or decoded again."""
        if self._cache.pixels is not None:
            return self._cache.pixels[rows]
        return np.stack(list(self._pool.map(self._decode_again, rows.tolist())))

    def close(self) -> None:
        """End the decoding threads."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _decoded(self) -> Iterator[tuple[int, Array | None]]:
        """Yield each row once, in any order, with its pixels, or None where the image cannot be used."""
        # note: enough to keep every thread busy while the caller computes, and few enough to bound the memory
        limit = 4 * self._threads + RANGE
        pending: deque[tuple[int, Future[Array]]] = deque()
        for root in range(len(self.manifest.roots)):
            rows = np.flatnonzero((self.manifest.root == root) & self._wanted)
            store = storage.open_store(self.manifest.roots[root], user_project=self._user_project)
            for index, data in store.read_many(_Objects(self.manifest, rows)):
                row = int(rows[index])
                pending.append((row, self._pool.submit(self._take, row, data)))
                while len(pending) > limit or (pending and pending[0][1].done()):
                    yield self._outcome(*pending.popleft())
        while pending:
            yield self._outcome(*pending.popleft())

    def _take(self, row: int, data: bytes | storage.LostObject) -> Array:
        """Check and decode one image, and keep its bytes. Runs in a thread of the pool."""
        if isinstance(data, storage.LostObject):
            raise images.UnreadableImage(data.reason, f"the object is {data.reason} since it was listed")
        header = images.read_header(data, max_pixels=self._max_pixels)
        pixels = decode.decode_image(data, header, self.image_size)
        self._cache.put_encoded(row, data)
        return pixels

    def _outcome(self, row: int, future: Future[Array]) -> tuple[int, Array | None]:
        try:
            return row, future.result()
        except images.UnreadableImage as error:
            label = self.manifest.labels[self.manifest.label[row]]
            size = int(self.manifest.size[row])
            image = Quarantined(self.manifest.uri(row), label, size, error.reason, error.detail)
            if self._is_final:
                raise errors.DataError(
                    f"{image.uri} cannot be read any more, and this run has begun with it: {image.detail}",
                    remedy="put it back as it was, or start a new Job or another run.id: a run of its own",
                ) from None
            log.get().warning("image.quarantined", uri=image.uri, reason=image.reason, detail=image.detail)
            self.quarantined.append(image)
            return row, None

    def _decode_again(self, row: int) -> Array:
        data = self._cache.encoded(row)
        return decode.decode_image(data, images.read_header(data, max_pixels=self._max_pixels), self.image_size)


class _Objects(Sequence[storage.ObjectInfo]):
    """Rows of a manifest as what a store reads, each made when it is asked for: a list of them would be large."""

    def __init__(self, manifest: Manifest, rows: Array) -> None:
        self._manifest = manifest
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> storage.ObjectInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[storage.ObjectInfo]: ...
    def __getitem__(self, index: int | slice) -> storage.ObjectInfo | Sequence[storage.ObjectInfo]:
        if isinstance(index, slice):
            return _Objects(self._manifest, self._rows[index])
        return self._manifest.object(int(self._rows[index]))
