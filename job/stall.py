"""Ends a run that has stopped getting anywhere, so that its GPU is not paid for in vain.

A download that hangs without an error, a deadlock, a GPU that does not answer: none of them ends by itself. The state
was saved when it was last worth saving; another Pod goes on from there.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from typing import TYPE_CHECKING

from job.errors import StallError
from job.progress import Event, Listener, Phase

if TYPE_CHECKING:
    from collections.abc import Callable


class StallWatch(Listener):
    """Watches from a thread of its own. After too long a silence it dumps all stacks and ends the process.

    Args:
        seconds: of silence.
        last_words: gets the error before the end: for the log and the termination message.
        end: ends the process.
    """

    def __init__(
        self, seconds: float, last_words: Callable[[StallError], None], end: Callable[[int], object] = os._exit
    ) -> None:
        self._seconds = seconds
        self._last_words = last_words
        self._end = end
        self._heard = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="stall", daemon=True).start()

    def on_event(self, event: Event) -> None:  # noqa: ARG002 (whatever it is, it is a sign of life)
        """Hear a sign of life."""
        self._heard = time.monotonic()

    def on_advance(self, phase: Phase) -> None:  # noqa: ARG002
        """Hear a sign of life."""
        self._heard = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 20):
            if time.monotonic() - self._heard < self._seconds:
                continue
            faulthandler.dump_traceback(all_threads=True)
            error = StallError(
                f"no progress for {self._seconds / 60:g} minutes (device.stall_minutes)",
                remedy="the stacks of all threads are in the log above; start it again: it goes on from its last "
                "checkpoint. If single steps take that long, raise device.stall_minutes",
            )
            try:
                self._last_words(error)
            finally:
                self._end(error.exit_code)
            return
