"""SIGTERM and SIGINT: a Pod that is told to go saves its state and ends with exit code 75, within seconds.

GKE gives a Spot Pod 15 seconds. What is under way is either a training step, which is finished and saved (`deferred`),
or something that the next Pod does again: that is left at once, by KeyboardInterrupt, which libraries expect and do not
swallow. Whatever hangs is cut off after `GRACE_SECONDS`, what can be saved being saved first; a second signal ends the
process at once.

Nothing heavy is imported here: `install` is the first thing that the program does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal

from job.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

GRACE_SECONDS, SAVE_SECONDS, WORDS_SECONDS = 5.0, 1.7, 0.5
"""How long the main thread may take to end by itself; then to save for it; and then to say so: below 8 together."""

_mode: Literal["exit", "raise", "defer"] = "exit"
_received: signal.Signals | None = None
_last_words: Callable[[], object] = int
_save: Callable[[float], bool] | None = None


def install() -> None:
    """Handle SIGTERM and SIGINT from now on. Until `interrupting` is entered, they end the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle)


@contextlib.contextmanager
def interrupting(last_words: Callable[[], object]) -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt in the main thread, while the block runs.

    Args:
        last_words: called in another thread before the process is cut off.
    """
    global _last_words  # noqa: PLW0603
    _last_words = last_words
    with _in_mode("raise"):
        yield


@contextlib.contextmanager
def saving(save: Callable[[float], bool]) -> Iterator[None]:
    """Let `save` be tried before the process is cut off, while the block runs.

    Args:
        save: gets the seconds that it has, and returns whether all is saved. Called in another thread.
    """
    global _save  # noqa: PLW0603
    before, _save = _save, save
    try:
        yield
    finally:
        _save = before


def save(seconds: float) -> bool:
    """Save what can be saved, for a process that is about to be cut off; return whether all that was done is saved."""
    return _save is not None and _save(seconds)


def attempt(action: Callable[[], object], seconds: float) -> bool:
    """Return whether `action` came to its end within so many seconds. It runs in a thread, and may hang there."""
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(action()), name="attempt", daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(done)


def leave(code: int) -> int:
    """End the process with `code` if a signal came, else return it: all is done, and a signal changes nothing any more.

    A process that leaves TensorFlow in the middle of its work hangs in its last, native breath.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if _received:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    return code


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let a signal only be noted while the block runs: it asks `received` and ends by itself."""
    with _in_mode("defer"):
        yield


def received() -> str | None:
    """Return the name of the first signal that came, None where none did."""
    return _received.name if _received else None


def _handle(number: int, _frame: FrameType | None) -> None:
    global _received  # noqa: PLW0603 (a process has one set of signals)
    if _received or _mode == "exit":
        os._exit(StoppedError.exit_code)
    _received = signal.Signals(number)
    threading.Thread(target=_cut_off, name="grace", daemon=True).start()
    if _mode == "raise":
        raise KeyboardInterrupt


def _cut_off() -> None:
    end = time.monotonic() + GRACE_SECONDS + SAVE_SECONDS
    time.sleep(GRACE_SECONDS)
    if not save(SAVE_SECONDS):  # what the main thread is at may still come to something
        time.sleep(max(0.0, end - time.monotonic()))
    attempt(_last_words, WORDS_SECONDS)
    os._exit(StoppedError.exit_code)


@contextlib.contextmanager
def _in_mode(mode: Literal["raise", "defer"]) -> Iterator[None]:
    global _mode  # noqa: PLW0603
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before
