"""The pass over the data, and the batches that training and scoring read.

The pass downloads, checks and decodes every image once; downloads end in any order, and what is computed from them does
not depend on it: batches are fixed ranges of the manifest's rows.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from job import errors, storage
from job.data import decode, image_header
from job.data.quarantine import Quarantined, UnreadableImage
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.cache import Cache
    from job.data.manifest import Manifest
    from job.observability.progress import Progress

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
        wanted: NDArray[Any] | None = None,
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

    def ingest(self, progress: Progress) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Download, check and decode every image; yield each range of rows as soon as it is complete.

        A generator: the pass is done when it is exhausted. An image that cannot be used leaves zeros behind.

        Yields:
            The rows, and their pixels: uint8 [RANGE, image_size, image_size, 3], the last range filled up with zeros.

        Raises:
            errors.DataError: an image that an earlier start has read cannot be read now.
            errors.UnavailableError: the store did not answer, after all retries.
        """
        count = len(self.manifest)
        ranges: dict[int, NDArray[Any]] = {}
        starts, images = np.unique(np.flatnonzero(self._wanted) // RANGE * RANGE, return_counts=True)
        missing = dict(zip(starts.tolist(), images.tolist(), strict=True))
        with progress.phase("ingest", int(self._wanted.sum()), "images") as phase:
            for start in [start for start in missing if self._is_kept(start)]:
                self.usable[start : start + RANGE] = self._wanted[start : start + RANGE]
                phase.advance(missing.pop(start))
            if reused := int(self.usable.sum()):
                log.get().info("cache.reused", images=reused, of=int(self._wanted.sum()))
            for row, pixels in self._decoded(np.flatnonzero(self._wanted & ~self.usable)):
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
        """Return an image's bytes as they were stored: kept ones, or read again where the cache is damaged."""
        kept = self._cache.encoded(row)
        if kept is not None:
            return kept
        log.get().warning("cache.damaged", uri=self.manifest.uri(row), note="the image is read again")
        [(_, fetched)] = self._fetched(np.array([row]))
        if isinstance(fetched, storage.LostObject):
            raise _gone(self.manifest.uri(row), _since_listed(fetched))
        self._cache.put_encoded(row, fetched)
        return fetched

    def pixels(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of the rows, uint8 [n, image_size, image_size, 3]: kept ones, or decoded again."""
        if self._cache.pixels is None:
            return np.stack(list(self._pool.map(self._decode_again, rows.tolist())))
        pixels, whole = self._cache.pixels.read(rows)
        for n in np.flatnonzero(~whole):
            pixels[n] = self._decode_again(int(rows[n]))
        return pixels

    def ranges(self) -> list[slice]:
        """Return the ranges of rows with a usable image in them, after the pass."""
        starts = np.unique(np.flatnonzero(self.usable) // RANGE * RANGE).tolist()
        return [slice(start, min(start + RANGE, len(self.manifest))) for start in starts]

    def range_pixels(self, rows: slice) -> NDArray[Any]:
        """Return the pixels of a range as `ingest` yields them: uint8 [RANGE, image_size, image_size, 3]."""
        usable = rows.start + np.flatnonzero(self.usable[rows])
        pixels = np.zeros((RANGE, self.image_size, self.image_size, 3), np.uint8)
        pixels[usable - rows.start] = self.pixels(usable)
        return pixels

    def close(self) -> None:
        """End the decoding threads."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_kept(self, start: int) -> bool:
        """Whether an earlier start has left all that is made of a range, and the bytes it was made of.

        These are not read for it: they are not needed before pixels are decoded again, and damage shows then.
        """
        rows = slice(start, min(start + RANGE, len(self.manifest)))
        wanted = start + np.flatnonzero(self._wanted[rows])
        return bool(self._cache.has_encoded(wanted).all()) and self._cache.has(rows)

    def _decoded(self, rows: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any] | None]]:
        """Yield each of the rows once, in any order, with its pixels, or None where the image cannot be used."""
        # note: enough to keep every thread busy while the caller computes, and few enough to bound the memory
        limit = 4 * self._threads + RANGE
        pending: deque[tuple[int, Future[NDArray[Any]]]] = deque()
        for row, data, is_kept in self._encoded(rows):
            pending.append((row, self._pool.submit(self._take, row, data, is_kept=is_kept)))
            while len(pending) > limit or (pending and pending[0][1].done()):
                yield self._outcome(*pending.popleft())
        while pending:
            yield self._outcome(*pending.popleft())

    def _encoded(self, rows: NDArray[Any]) -> Iterator[tuple[int, bytes | storage.LostObject, bool]]:
        """Yield the bytes of each row, about in their order, and whether an earlier start has left them here.

        What is here and what each store gives comes from whichever is furthest behind, so that few ranges are
        incomplete at a time, however the rows are distributed.
        """
        is_kept = self._cache.has_encoded(rows)
        kept, missing = rows[is_kept], rows[~is_kept]
        sources = [(kept, self._kept(kept))]
        for root in np.unique(self.manifest.root[missing]):
            of_root = missing[self.manifest.root[missing] == root]
            sources.append((of_root, ((row, data, False) for row, data in self._fetched(of_root))))
        behind = [(int(own[0]), 0, n) for n, (own, _) in enumerate(sources) if len(own)]
        heapq.heapify(behind)
        while behind:
            _, taken, n = heapq.heappop(behind)
            own, items = sources[n]
            yield next(items)
            if taken + 1 < len(own):
                heapq.heappush(behind, (int(own[taken + 1]), taken + 1, n))

    def _kept(self, rows: NDArray[Any]) -> Iterator[tuple[int, bytes | storage.LostObject, bool]]:
        """Yield the bytes of rows that an earlier start has left here, and soon after, read again, damaged ones."""
        for start in range(0, len(rows), RANGE):
            damaged = []
            for row in rows[start : start + RANGE].tolist():
                data = self._cache.encoded(row)
                if data is None:
                    damaged.append(row)
                else:
                    yield row, data, True
            if damaged:
                log.get().warning("cache.damaged", images=len(damaged), note="they are read again")
            for row, fetched in self._fetched(np.array(damaged, np.intp)):
                yield row, fetched, False

    def _fetched(self, rows: NDArray[Any]) -> Iterator[tuple[int, bytes | storage.LostObject]]:
        """Yield what the stores give for each row, as it arrives."""
        for root in np.unique(self.manifest.root[rows]):
            of_root = rows[self.manifest.root[rows] == root]
            store = storage.open_store(self.manifest.roots[root], user_project=self._user_project)
            for index, data in store.read_many(_Objects(self.manifest, of_root)):
                yield int(of_root[index]), data

    def _take(self, row: int, data: bytes | storage.LostObject, *, is_kept: bool) -> NDArray[Any]:
        """Check and decode one image, and keep its bytes. Runs in a thread of the pool."""
        if isinstance(data, storage.LostObject):
            raise UnreadableImage(data.reason, _since_listed(data))
        header = image_header.read_header(data, max_pixels=self._max_pixels)
        pixels = decode.decode_image(data, header, self.image_size)
        if not is_kept:
            self._cache.put_encoded(row, data)
        return pixels

    def _outcome(self, row: int, future: Future[NDArray[Any]]) -> tuple[int, NDArray[Any] | None]:
        try:
            return row, future.result()
        except UnreadableImage as error:
            label = self.manifest.labels[self.manifest.label[row]]
            size = int(self.manifest.size[row])
            image = Quarantined(self.manifest.uri(row), label, size, error.reason, error.detail)
            if self._is_final:
                raise _gone(image.uri, image.detail) from None
            log.get().warning("image.quarantined", uri=image.uri, reason=image.reason, detail=image.detail)
            self.quarantined.append(image)
            return row, None

    def _decode_again(self, row: int) -> NDArray[Any]:
        data = self.encoded(row)
        return decode.decode_image(data, image_header.read_header(data, max_pixels=self._max_pixels), self.image_size)


def _since_listed(lost: storage.LostObject) -> str:
    return f"the object is {lost.reason} since it was listed"


def _gone(uri: str, detail: str) -> errors.DataError:
    return errors.DataError(
        f"{uri} cannot be read any more, and this run has begun with it: {detail}",
        remedy="put it back as it was, or start a new Job or another run.id: a run of its own",
    )


class _Objects(Sequence[storage.ObjectInfo]):
    """Rows of a manifest as what a store reads, each made when it is asked for: a list of them would be large."""

    def __init__(self, manifest: Manifest, rows: NDArray[Any]) -> None:
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
