"""Measures the parts of a run."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Timing:
    """Wall-clock seconds per part, for ``timing`` in metrics.json."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the block's duration to part `name`."""
        started = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started

    def document(self) -> dict[str, float]:
        """Return the seconds of each part so far, and as ``total`` those since the run began."""
        seconds = {**self._seconds, "total": time.monotonic() - self._started}
        return {name: round(value, 3) for name, value in seconds.items()}
