"""What limits the pass over the data: the part that its main thread spends the most time on, or waits for longest.

Images are downloaded and decoded beside the main thread, which hands out the work and computes the features. So the
seconds in which it waits or computes add up to those of the pass, and what the other threads do meanwhile is free.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Part = Literal["store", "decoding", "cache", "features"]
"""``store``: bytes of the images arrive from where they are stored. ``decoding``: they are checked and decoded.
``cache``: the disk of the cache is read or written. ``features``: what the caller makes of the pixels."""

PARTS: Final[tuple[Part, ...]] = ("store", "decoding", "cache", "features")


class PassTime:
    """Adds up the seconds of the main thread by part.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._started = clock()
        self._waited = dict.fromkeys(PARTS, 0.0)
        self._decoded = self._written = 0.0

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the seconds of a block, which the main thread runs."""
        started = self.clock()
        try:
            yield
        finally:
            self.add(name, self.clock() - started)

    def add(self, name: Part, seconds: float) -> None:
        """Count seconds of the main thread."""
        self._waited[name] += seconds

    def add_worker(self, *, decoding: float, cache: float) -> None:
        """Count the seconds that a decoding thread took for one image, and for writing its bytes to the cache.

        They say which of the two the main thread waited for when it waited for decoding threads.
        """
        self._decoded += decoding
        self._written += cache

    def facts(self, images: int) -> dict[str, Any]:
        """Return the facts of the event ``images.read``.

        Args:
            images: number of images that were read.
        """
        waited = dict(self._waited)
        written = self._written / max(self._decoded + self._written, 1e-9) * waited["decoding"]
        waited["decoding"] -= written
        waited["cache"] += written
        seconds = self.clock() - self._started
        return {
            "images": images,
            "seconds": round(seconds, 2),
            "images_per_second": round(images / max(seconds, 1e-9), 1),
            "limited_by": max(PARTS, key=lambda part: waited[part]),
            "seconds_by_part": {part: round(waited[part], 2) for part in PARTS},
        }
