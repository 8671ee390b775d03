"""The pass over the data, and the batches that training and scoring read.

The pass downloads, checks and decodes every image once. Results do not depend on the order in which downloads finish:
batches are fixed ranges of the manifest's rows.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from job import errors, storage
from job.data import decode, image_header
from job.data.duplicates import perceptual_hash
from job.data.pass_time import PassTime
from job.data.quarantine import Quarantined, UnreadableImage
from job.data.sources import Sources
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from job.config.settings import InputSettings
    from job.data.cache import Cache
    from job.data.manifest import Manifest
    from job.observability.progress import Progress
    from job.storage import OpenStore

RANGE = 32
"""Manifest rows decoded and fed to the base model together. A constant, not a setting: the bits of a feature depend on
the size of its batch."""


class Share(NamedTuple):
    """The ranges that this worker reads in the pass: every `workers`-th one, so that shares are spread over the list.

    Attributes:
        worker: number of this worker.
        workers: number of workers.
    """

    worker: int = 0
    workers: int = 1

    def owner(self, row: int) -> int:
        """Return the number of the worker that reads a row's range."""
        return row // RANGE % self.workers

    def rows(self, images: int, worker: int) -> NDArray[np.intp]:
        """Return the rows of a worker, ascending, of a list of so many images."""
        return np.flatnonzero(np.arange(images) // RANGE % self.workers == worker)


class _Processed(NamedTuple):
    """A decoded image, and the seconds of the thread that decoded it: those for the cache are counted apart."""

    decoded: decode.Decoded
    decoding_seconds: float
    cache_seconds: float


class Dataset:
    """The images of a run, by their row in the manifest.

    Args:
        manifest: every listed image.
        cache: stores bytes and pixels.
        image_size: height and width of the decoded pixels.
        settings: say which images are not used: too large ones, and damaged ones.
        threads: number of images decoded in parallel.
        selected: bool [images], those to read; all by default. If given, an earlier start has read them, so none may
            be missing or unreadable now, and nothing is reported again.
        open_store: opens the stores of the manifest.
        share: what this worker reads in the pass. What the others found is known after `add_findings`.

    Attributes:
        share: as given.
        quarantined: the images that cannot be used. Complete after the pass.
        damaged: bool [images], those that libjpeg warns about and that are used. Complete after the pass; none if
            `selected` is given: an earlier start has reported them.
        usable: bool [images]. Complete after the pass.
        hashes: uint64 [images], of what the usable images show (`duplicates.perceptual_hash`). Complete after the pass;
            None if `selected` is given: an earlier start has them.
    """

    def __init__(  # noqa: PLR0913  # two have their defaults
        self,
        manifest: Manifest,
        cache: Cache,
        *,
        image_size: int,
        settings: InputSettings,
        threads: int,
        selected: NDArray[Any] | None = None,
        open_store: OpenStore,
        share: Share = Share(),  # noqa: B008  # it cannot be changed
    ) -> None:
        self.manifest = manifest
        self.share = share
        self.image_size = image_size
        self.quarantined: list[Quarantined] = []
        self.damaged = np.zeros(len(manifest), bool)
        self.usable = np.zeros(len(manifest), bool)
        self.hashes = np.zeros(len(manifest), np.uint64) if selected is None else None
        self._cache = cache
        self._max_pixels = settings.max_pixels
        self._threads = threads
        self._refuse_damaged = settings.damaged == "quarantine"
        self._must_succeed = selected is not None
        self._selected = np.ones(len(manifest), bool) if selected is None else selected
        self._sources = Sources(manifest, open_store)
        self._time = PassTime()
        self._pool = ThreadPoolExecutor(threads, "decode")
        self._closed = False
        self._lock = threading.Lock()

    def ingest(self, progress: Progress, *, check: Callable[[], object] = int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Download, check and decode every image of the share; yield each range of rows as soon as it is complete.

        The pass is done when the generator is exhausted. The pixels of an unusable image are zeros.

        Args:
            progress: receives the events.
            check: called after each image; what it raises ends the pass.

        Yields:
            The rows, and their pixels: uint8 [RANGE, image_size, image_size, 3], the last range padded with zeros.

        Raises:
            errors.DataError: an image that an earlier start read cannot be read now.
            errors.UnavailableError: the store did not respond, after all retries.
        """
        count, self._time = len(self.manifest), PassTime()
        ranges: dict[int, NDArray[Any]] = {}
        own = self.share.rows(count, self.share.worker)
        own = own[self._selected[own]]
        starts, images = np.unique(own // RANGE * RANGE, return_counts=True)
        remaining = dict(zip(starts.tolist(), images.tolist(), strict=True))
        with decode.quiet(), progress.phase("ingest", len(own), "images") as phase:
            with self._time.part("cache"):
                for start in [start for start in remaining if self._is_cached(start)]:
                    self.usable[start : start + RANGE] = self._selected[start : start + RANGE]
                    self._restore_findings(np.arange(start, min(start + RANGE, count)))
                    phase.advance(remaining.pop(start))
            if reused := int(self.usable.sum()):
                progress.event("cache.reused", images=reused, of=len(own))
            missing = own[~self.usable[own]]
            for row, pixels in self._decoded(missing):
                start = row - row % RANGE
                if start not in ranges:
                    ranges[start] = np.zeros((RANGE, self.image_size, self.image_size, 3), np.uint8)
                if pixels is not None:
                    ranges[start][row - start] = pixels
                    self.usable[row] = True
                remaining[start] -= 1
                phase.advance()
                check()
                if not remaining[start]:
                    del remaining[start]
                    rows = slice(start, min(start + RANGE, count))
                    complete = ranges.pop(start)
                    if self._cache.pixels is not None:
                        with self._time.part("cache"):
                            self._cache.pixels[rows] = complete[: rows.stop - start]
                    with self._time.part("features"):
                        yield rows, complete
        if len(missing):
            progress.event("images.read", **self._time.facts(len(missing)))
        self.quarantined.sort(key=lambda image: image.uri)

    def skip_pass(self) -> None:
        """Leave out the pass, since an earlier start has made it. Images are read from their store when needed."""
        self.usable[:] = self._selected

    def fetch_ahead(self) -> None:
        """Read the bytes of all usable images that the cache lacks in a thread of its own, until `close`.

        For a worker that has read its share, and soon trains on the other images. A batch requests few images at once;
        this thread requests many. What it cannot read is read again when a batch needs it.
        """
        threading.Thread(target=self._fetch, name="fetch", daemon=True).start()

    def findings(self) -> dict[str, NDArray[Any]]:
        """Return what the pass over the own share found, as plain arrays: for `add_findings` in the other workers."""
        rows = self.share.rows(len(self.manifest), self.share.worker)
        quarantined = json.dumps([dataclasses.asdict(image) for image in self.quarantined]).encode()
        found = {name: column[rows] for name, column in self._columns().items()}
        return {**found, "quarantined": np.frombuffer(quarantined, np.uint8)}

    def add_findings(self, worker: int, findings: Mapping[str, NDArray[Any]]) -> None:
        """Take over what another worker's pass found.

        Args:
            worker: its number.
            findings: of its `findings`.
        """
        rows = self.share.rows(len(self.manifest), worker)
        for name, column in self._columns().items():
            column[rows] = findings[name]
        for row in rows[findings["damaged"]].tolist():  # a later start of fewer workers may find it in the cache
            self._cache.mark_damaged(row)
        quarantined = [Quarantined(**image) for image in json.loads(findings["quarantined"].tobytes())]
        self.quarantined = sorted(self.quarantined + quarantined, key=lambda image: image.uri)

    def encoded(self, row: int) -> bytes:
        """Return an image's encoded bytes from the cache, or from the store if the cache is damaged."""
        cached = self._cache.encoded(row)
        if cached is not None:
            return cached
        log.get().warning("cache.damaged", uri=self.manifest.uri(row), note="the image is read again")
        [(_, fetched)] = self._sources.read(np.array([row]))
        if isinstance(fetched, storage.LostObject):
            raise _cannot_read(self.manifest.uri(row), fetched.detail)
        with self._lock:
            self._cache.put_encoded(row, fetched)
        return fetched

    def pixels(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of the rows, uint8 [n, image_size, image_size, 3], from the cache or decoded again."""
        if self._cache.pixels is None:
            return self._decode_rows(rows)
        pixels, intact = self._cache.pixels.read(rows)
        if not intact.all():
            pixels[~intact] = self._decode_rows(rows[~intact])
            for n in np.flatnonzero(~intact):
                row = slice(int(rows[n]), int(rows[n]) + 1)
                if not self._cache.pixels.has(row):  # the pass was skipped
                    self._cache.pixels[row] = pixels[n : n + 1]
        return pixels

    def ranges(self) -> list[slice]:
        """Return the ranges of rows that contain a usable image, after the pass."""
        starts = np.unique(np.flatnonzero(self.usable) // RANGE * RANGE).tolist()
        return [slice(start, min(start + RANGE, len(self.manifest))) for start in starts]

    def own_ranges(self) -> list[slice]:
        """Return those of the own share."""
        return [rows for rows in self.ranges() if self.share.owner(rows.start) == self.share.worker]

    def range_pixels(self, rows: slice) -> NDArray[Any]:
        """Return the pixels of a range, as `ingest` yields them: uint8 [RANGE, image_size, image_size, 3]."""
        usable = rows.start + np.flatnonzero(self.usable[rows])
        pixels = np.zeros((RANGE, self.image_size, self.image_size, 3), np.uint8)
        pixels[usable - rows.start] = self.pixels(usable)
        return pixels

    def close(self) -> None:
        """Stop the threads. One that still waits for a store ends by itself, and leaves the cache alone."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _columns(self) -> dict[str, NDArray[Any]]:
        """Return what the pass finds out about each image."""
        columns = {"usable": self.usable, "damaged": self.damaged}
        return columns if self.hashes is None else {**columns, "hashes": self.hashes}

    def _is_cached(self, start: int) -> bool:
        """Whether the cache holds everything computed from a range, and the bytes it was computed from.

        The bytes are not read here: they are not needed until pixels are decoded again, and damage is detected then.
        """
        rows = slice(start, min(start + RANGE, len(self.manifest)))
        selected = start + np.flatnonzero(self._selected[rows])
        return bool(self._cache.has_encoded(selected).all()) and self._cache.has(rows)

    def _decoded(self, rows: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any] | None]]:
        """Yield each row once, in any order, with its pixels, or None if the image is unusable."""
        # note: enough to keep all threads busy while the caller computes, few enough to bound the memory
        limit = 4 * self._threads + RANGE
        pending: deque[tuple[int, Future[_Processed]]] = deque()
        for row, data, is_cached in self._encoded(rows):
            pending.append((row, self._pool.submit(self._process, row, data, is_cached=is_cached)))
            while len(pending) > limit or (pending and pending[0][1].done()):
                yield self._result(*pending.popleft())
        while pending:
            yield self._result(*pending.popleft())

    def _encoded(self, rows: NDArray[Any]) -> Iterator[tuple[int, bytes | storage.LostObject, bool]]:
        """Yield the bytes of each row, roughly in order, and whether they came from the cache.

        The next item always comes from the source that is further behind, the cache or the stores, so that few ranges
        are incomplete at a time, however the rows are distributed.
        """
        is_cached = self._cache.has_encoded(rows)
        cached, missing = rows[is_cached], rows[~is_cached]
        fetched = ((row, data, False) for row, data in self._sources.read(missing))
        sources = [(cached, self._cached(cached)), (missing, fetched)]
        queue = [(int(source_rows[0]), 0, n) for n, (source_rows, _) in enumerate(sources) if len(source_rows)]
        heapq.heapify(queue)
        while queue:
            _, position, n = heapq.heappop(queue)
            source_rows, items = sources[n]
            started = self._time.clock()
            item = next(items)
            self._time.add("cache" if item[2] else "store", self._time.clock() - started)
            yield item
            if position + 1 < len(source_rows):
                heapq.heappush(queue, (int(source_rows[position + 1]), position + 1, n))

    def _cached(self, rows: NDArray[Any]) -> Iterator[tuple[int, bytes | storage.LostObject, bool]]:
        """Yield the cached bytes of the rows; damaged ones follow soon after, read from the store."""
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
            for row, fetched in self._sources.read(np.array(damaged, np.intp)):
                yield row, fetched, False

    def _process(self, row: int, data: bytes | storage.LostObject, *, is_cached: bool) -> _Processed:
        """Check and decode one image, and cache its bytes. Runs in a thread of the pool."""
        if isinstance(data, storage.LostObject):
            raise UnreadableImage(data.reason, data.detail)
        started = time.perf_counter()
        header = image_header.read_header(data, max_pixels=self._max_pixels)
        if self.hashes is None:
            decoded = decode.Decoded(decode.decode_image(data, header, self.image_size), warning="")
        else:
            decoded = decode.decode_and_check(data, header, self.image_size, refuse_damaged=self._refuse_damaged)
            self.hashes[row] = perceptual_hash(decoded.pixels)
        finished = time.perf_counter()
        if decoded.warning:
            self._cache.mark_damaged(row)
        if not is_cached:
            self._cache.put_encoded(row, data)
        return _Processed(decoded, finished - started, time.perf_counter() - finished)

    def _result(self, row: int, future: Future[_Processed]) -> tuple[int, NDArray[Any] | None]:
        try:
            with self._time.part("decoding"):
                (pixels, warning), decoding, cache = future.result()
        except UnreadableImage as error:
            label = self.manifest.labels[self.manifest.label[row]]
            size = int(self.manifest.size[row])
            image = Quarantined(self.manifest.uri(row), label, size, error.reason, error.detail)
            if self._must_succeed:
                raise _cannot_read(image.uri, image.detail) from None
            log.get().warning("image.quarantined", uri=image.uri, reason=image.reason, detail=image.detail)
            self.quarantined.append(image)
            return row, None
        self._time.add_worker(decoding=decoding, cache=cache)
        if warning:
            log.get().warning("image.damaged", uri=self.manifest.uri(row), detail=warning)
            self.damaged[row] = True
        return row, pixels

    def _restore_findings(self, rows: NDArray[Any]) -> None:
        """Find out about cached images what a pass does: it was interrupted before that was saved."""
        if self.hashes is not None:
            self.hashes[rows] = [perceptual_hash(pixels) for pixels in self.pixels(rows)]
            self.damaged[rows] = self._cache.damaged(rows)

    def _decode_rows(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels of the rows, decoded from their cached bytes; those that are missing are read."""
        missing = np.unique(rows[~self._cache.has_encoded(rows)])
        for row, fetched in self._sources.read(missing):
            if isinstance(fetched, storage.LostObject):
                raise _cannot_read(self.manifest.uri(row), fetched.detail)
            self._keep(row, fetched)
        with decode.quiet():
            return np.stack(list(self._pool.map(self._decode_again, rows.tolist())))

    def _fetch(self) -> None:
        missing = np.flatnonzero(self.usable)
        missing = missing[~self._cache.has_encoded(missing)]
        try:
            for row, fetched in self._sources.read(missing):
                if self._closed:
                    break
                if not isinstance(fetched, storage.LostObject):
                    self._keep(row, fetched)
        except errors.FinetuneError as error:  # raised again by the batch that needs the image, if it stays
            note = "images of other shares are read when a batch needs them, which is slower"
            log.get().warning("images.not_fetched_ahead", error=error.message, note=note)

    def _keep(self, row: int, data: bytes) -> None:
        """Cache the bytes of an image, unless another thread has."""
        with self._lock:  # note: bytes that are put twice would count twice
            if not self._closed and not self._cache.has_encoded(np.array([row])).all():
                self._cache.put_encoded(row, data)

    def _decode_again(self, row: int) -> NDArray[Any]:
        data = self.encoded(row)
        return decode.decode_image(data, image_header.read_header(data, max_pixels=self._max_pixels), self.image_size)


def _cannot_read(uri: str, detail: str) -> errors.DataError:
    return errors.DataError(
        f"{uri} cannot be read any more, and this run has begun with it: {detail}",
        remedy="restore it, or start a new run: a new Job, or another run.id",
    )
