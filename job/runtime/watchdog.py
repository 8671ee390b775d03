"""Ends a run that makes no progress, so that no idle GPU is paid for.

A download that hangs without an error, a deadlock and an unresponsive GPU never end by themselves. The state is saved
if possible, and another Pod resumes from it. The code that hangs may hold a lock needed for saving, so every step has a
timeout, after which the process exits anyway.
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

SAVE_SECONDS, REPORT_SECONDS = 10.0, 3.0

COMPILING_SECONDS = 3600.0
"""Minimum limit while the driver compiles TensorFlow's kernels: TensorFlow itself warns that this takes "30 minutes or
longer"."""


class StallWatch(Listener):
    """Watches from its own thread. After too long without an event it logs all stacks, saves, and exits the process.

    After ``device.kernels_compiled_at_first_use`` the limit is at least `COMPILING_SECONDS`, until the first epoch of
    stage 2 is finished: by then training and validation have used all their kernels.

    Args:
        seconds: limit of the time between two events.
        save: saves what it can within the given seconds, and returns whether everything is saved.
        last_words: receives the error before the exit, for the log and the termination message.
        exit_process: ends the process.
    """

    def __init__(
        self,
        seconds: float,
        *,
        save: Callable[[float], bool],
        last_words: Callable[[StallError], None],
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._seconds = seconds
        self._save = save
        self._last_words = last_words
        self._exit_process = exit_process
        self._limit = seconds
        self._last_event = time.monotonic()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="stall", daemon=True).start()

    def on_event(self, event: Event) -> None:
        """Restart the timer, and adjust the limit to the event."""
        self._last_event = time.monotonic()
        if event.name == "device.kernels_compiled_at_first_use":
            self._limit = max(self._seconds, COMPILING_SECONDS)
        elif event.name == "epoch.finished" and event.facts.get("stage") == "fine_tuning":
            self._limit = self._seconds

    def on_advance(self, phase: Phase) -> None:  # noqa: ARG002
        """Restart the timer."""
        self._last_event = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._seconds / 20):
            if time.monotonic() - self._last_event >= self._limit:
                self._end_run()
                return

    def _end_run(self) -> None:
        signals.attempt(_log_stacks, REPORT_SECONDS)
        saved = "the state is saved" if self._save(SAVE_SECONDS) else "what was saved before is kept"
        compiling = "" if self._limit == self._seconds else ", longer while kernels are compiled for this GPU"
        error = StallError(
            f"no progress for {self._limit / 60:g} minutes (device.stall_minutes{compiling}); {saved}",
            remedy="the stacks of all threads are in the log above; start it again: it resumes. If single steps take "
            "that long, raise device.stall_minutes",
        )
        signals.attempt(lambda: self._last_words(error), REPORT_SECONDS)
        signals.record_end(error, REPORT_SECONDS)
        self._exit_process(error.exit_code)


def _log_stacks() -> None:
    """Log the stack of every thread, formatted like a traceback: a line for each, or a line would be too long.

    Threads of a pool that wait for work have the same stack, and share a line.
    """
    frames = sys._current_frames()  # noqa: SLF001 (documented, and the only way)
    threads_at: dict[str, list[str]] = {}
    for thread in threading.enumerate():
        if frame := frames.get(thread.ident or 0):
            threads_at.setdefault("".join(traceback.format_stack(frame)), []).append(thread.name)
    for stack, threads in threads_at.items():
        log.get().error("run.stalled", threads=threads, stack=stack)
