"""Measures the parts of a run, over all of its starts."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Part = Literal[
    "list",
    "import",
    "model",
    "ingest",
    "feature_extraction",
    "label_errors",
    "fine_tuning",
    "evaluate",
    "export",
    "verify",
    "convert",
    "upload",
    "compare",
    "report",
]


class Timing:
    """Wall-clock seconds of each part, for ``timing`` in metrics.json. `document` is thread-safe.

    Attributes:
        earlier: `document` of the earlier starts; its seconds are added to those of this one.
    """

    def __init__(self) -> None:
        self.earlier: Mapping[str, float] = {}
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._current: tuple[str, float] | None = None

    @contextlib.contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Add the block's duration to a part."""
        started = time.monotonic()
        self._current = name, started
        try:
            yield
        finally:
            self._current = None
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started

    def document(self) -> dict[str, float]:
        """Return the seconds of each part so far, and as ``total`` those since the starts began, over all starts."""
        now = time.monotonic()
        seconds = {**dict.fromkeys(get_args(Part), 0.0), **self._seconds, "total": now - self._started}
        if current := self._current:
            name, started = current
            seconds[name] += now - started
        return {name: round(value + self.earlier.get(name, 0.0), 3) for name, value in seconds.items()}
