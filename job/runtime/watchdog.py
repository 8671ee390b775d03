"""Ends a run that has stopped getting anywhere, so that its GPU is not paid for in vain.

A download that hangs without an error, a deadlock, a GPU that does not answer: none of them ends by itself. What can be
saved is saved; another Pod goes on from there. Whatever hangs may hold a lock that is needed for this, so that each
part of it has its seconds, and then the process ends all the same.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from job.errors import StallError
from job.observability import log
from job.observability.progress import Event, Listener, Phase
from job.runtime import signals

if TYPE_CHECKING:
    from collections.abc import Callable

SAVE_SECONDS, WORDS_SECONDS = 10.0, 3.0

COMPILING_SECONDS = 3600.0
"""The least silence that ends a run while the driver compiles TensorFlow's kernels; TensorFlow itself announces "30
minutes or longer" for that."""


class StallWatch(Listener):
    """Watches from a thread of its own. After too long a silence it logs all stacks, saves, and ends the process.

    After ``device.kernels_compiled_at_first_use`` the limit is at least `COMPILING_SECONDS`, until the first finished
    epoch of stage 2: training and validation have used all their kernels by then.

    Args:
        seconds: of silence.
        save: saves what can be saved within the seconds that it gets, and returns whether all is saved.
        last_words: gets the error before the end: for the log and the termination message.
        end: ends the process.
    """

    def __init__(
        self,
        seconds: float,
        *,
        save: Callable[[float], bool],
        last_words: Callable[[StallError], None],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._seconds = seconds
        self._save = save
        self._last_words = last_words
        self._end = end
        self._limit = seconds
        self._heard = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="stall", daemon=True).start()

    def on_event(self, event: Event) -> None:
        """Take any event as a sign of life, and adjust the limit to what it announces."""
        self._heard = time.monotonic()
        if event.name == "device.kernels_compiled_at_first_use":
            self._limit = max(self._seconds, COMPILING_SECONDS)
        elif event.name == "epoch.finished" and event.facts.get("stage") == "fine_tuning":
            self._limit = self._seconds

    def on_advance(self, phase: Phase) -> None:  # noqa: ARG002
        """Hear a sign of life."""
        self._heard = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 20):
            if time.monotonic() - self._heard >= self._limit:
                self._give_up()
                return

    def _give_up(self) -> None:
        signals.attempt(lambda: log.get().error("run.stalled", stacks=_stacks()), WORDS_SECONDS)
        kept = "the state is saved" if self._save(SAVE_SECONDS) else "what was saved before is kept"
        compiling = "" if self._limit == self._seconds else ", longer while kernels are compiled for this GPU"
        error = StallError(
            f"no progress for {self._limit / 60:g} minutes (device.stall_minutes{compiling}); {kept}",
            remedy="the stacks of all threads are in the log above; start it again: it goes on. If single steps take "
            "that long, raise device.stall_minutes",
        )
        signals.attempt(lambda: self._last_words(error), WORDS_SECONDS)
        self._end(error.exit_code)


def _stacks() -> str:
    """Return where each thread is, as tracebacks show it."""
    frames = sys._current_frames()  # noqa: SLF001 (documented, and the only way)
    return "\n".join(
        f"{thread.name}:\n" + "".join(traceback.format_stack(frames[thread.ident]))
        for thread in threading.enumerate()
        if thread.ident in frames
    )
