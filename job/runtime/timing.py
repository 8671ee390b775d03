"""How long each part of a run took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Timing:
    """Wall seconds by part, for the ``timing`` of metrics.json."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time that the block takes as that of part `name`."""
        started = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started

    def document(self) -> dict[str, float]:
        """Return the seconds of each part so far, and those since the run began as ``total``."""
        seconds = {**self._seconds, "total": time.monotonic() - self._started}
        return {name: round(value, 3) for name, value in seconds.items()}
