"""SIGTERM and SIGINT: a Pod that is told to go saves its state and ends with exit code 75, within seconds.

GKE gives a Spot Pod 15 seconds. What is under way is either a training step, which is finished and saved (`deferred`),
or something that the next Pod does again: that is left at once, by KeyboardInterrupt, which libraries expect and do not
swallow. Whatever hangs then is cut off after `GRACE_SECONDS`; a second signal ends the process at once.

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

STOPPED = 75
"""The exit code: errors.StoppedError has the same, and is not imported here."""

GRACE_SECONDS = 6.5

_mode: Literal["exit", "raise", "defer"] = "exit"
_received: signal.Signals | None = None
_last_words: Callable[[], object] = int


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
        os._exit(STOPPED)
    _received = signal.Signals(number)
    threading.Thread(target=_cut_off, name="grace", daemon=True).start()
    if _mode == "raise":
        raise KeyboardInterrupt


def _cut_off() -> None:
    time.sleep(GRACE_SECONDS)
    words = threading.Thread(target=_last_words, name="last words", daemon=True)
    words.start()
    words.join(0.5)
    os._exit(STOPPED)


@contextlib.contextmanager
def _in_mode(mode: Literal["raise", "defer"]) -> Iterator[None]:
    global _mode  # noqa: PLW0603
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before
