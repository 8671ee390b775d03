"""SIGTERM, SIGINT and SIGHUP: the process saves its state and exits with code 75 within seconds.

GKE gives a Spot Pod 15 seconds. A training step in progress is finished and saved (`deferred`). Other work is repeated
by the next Pod, so it is aborted at once by KeyboardInterrupt, which libraries expect and do not swallow. Work that
hangs is aborted after `GRACE_SECONDS`, after an attempt to save. A second signal ends the process at once, except
SIGHUP.

The interpreter runs a signal's handler in the main thread alone, and only between two of its own instructions: a main
thread that waits in a library may never come to it. So what ends the process is started by a thread of its own, which
the interpreter wakes from within the signal itself (`signal.set_wakeup_fd`).

Nothing heavy is imported here: `install` is the first thing that the program calls.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Literal

from job.errors import FinetuneError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

GRACE_SECONDS, SAVE_SECONDS, REPORT_SECONDS = 5.0, 1.7, 0.5
"""Time for the main thread to end by itself, then for saving in its place, then twice for reporting, in the log and in
the Job's record: below 8 in total."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_mode: Literal["exit", "raise", "defer"] = "exit"
_received: signal.Signals | None = None
_handled = False
_last_words: Callable[[], object] = int
_save: Callable[[float], bool] | None = None
_record_end: Callable[[FinetuneError], object] | None = None
_threads_left = False


def install() -> None:
    """Handle the signals from now on. They end the process at once until `interrupting` is entered.

    SIGHUP stays ignored if it is: the process was started by nohup, to outlive its terminal.
    """
    numbers, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    threading.Thread(target=_watch, args=(numbers,), name="signals", daemon=True).start()
    handle()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # see `hold`


def handle() -> None:
    """Handle the signals from now on, as `install` does: again after a library has replaced the handlers."""
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def hold() -> None:
    """Hold the signals back until `install` is called, by another program in this process.

    The default action of one in between would end the process, with an exit code that is not that of a stop.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


@contextlib.contextmanager
def interrupting(last_words: Callable[[], object]) -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt in the main thread, while the block runs.

    Args:
        last_words: called in another thread before a hanging process is ended.
    """
    global _last_words  # noqa: PLW0603
    _last_words = last_words
    with _in_mode("raise"):
        yield


@contextlib.contextmanager
def saving(save: Callable[[float], bool]) -> Iterator[None]:
    """While the block runs, call `save` before a hanging process is ended.

    Args:
        save: saves within the given seconds, and returns whether everything is saved. Called in another thread.
    """
    global _save  # noqa: PLW0603
    previous, _save = _save, save
    try:
        yield
    finally:
        _save = previous


def save(seconds: float) -> bool:
    """Save what can be saved before the process is ended; return whether everything is saved."""
    return _save is not None and _save(seconds)


@contextlib.contextmanager
def recording(record: Callable[[FinetuneError], object]) -> Iterator[None]:
    """While the block runs, call `record` with the reason before a hanging process is ended.

    Args:
        record: stores how the process ends. Called in another thread.
    """
    global _record_end  # noqa: PLW0603
    previous, _record_end = _record_end, record
    try:
        yield
    finally:
        _record_end = previous


def record_end(error: FinetuneError, seconds: float) -> None:
    """Record why the process is about to be ended, within a time limit."""
    if (record := _record_end) is not None:
        attempt(lambda: record(error), seconds)


def attempt(action: Callable[[], object], seconds: float) -> bool:
    """Run `action` in a thread, where it may hang; return whether it finished within `seconds`."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(action()), name="attempt", daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(results)


def leave_threads() -> None:
    """Let `exit_now` exit without waiting for threads: some of them hang."""
    global _threads_left  # noqa: PLW0603
    _threads_left = True


def exit_now(code: int) -> int:
    """Exit the process with `code` if a signal was received or threads hang, else return it; ignore later signals.

    An ordinary exit would hang in native code if TensorFlow was interrupted, and waits for the threads of pools.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if _received or _threads_left:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)
    return code


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """While the block runs, only record a signal: the block checks `received` and ends by itself."""
    with _in_mode("defer"):
        yield


def stopped_error() -> StoppedError:
    """Return the error of a process that a signal has stopped."""
    message = f"stopped by {received() or 'SIGINT'}; what was saved is kept"
    return StoppedError(message, remedy="start it again with the same settings: it resumes")


def received() -> str | None:
    """Return the name of the first signal received; None if there was none."""
    return _received.name if _received else None


def _handle(number: int, _frame: FrameType | None) -> None:
    global _handled  # noqa: PLW0603 (a process has one set of signals)
    if _handled:  # what comes after the first one is for `_watch`
        return
    if _mode == "exit":
        os._exit(StoppedError.exit_code)
    _handled = True
    _record(number)
    if _mode == "raise":
        raise KeyboardInterrupt


def _record(number: int) -> None:
    global _received  # noqa: PLW0603
    _received = _received or signal.Signals(number)


def _watch(numbers: int) -> None:
    """Cut off what hangs after the first signal, and end the process at the second; run by a thread of its own.

    Args:
        numbers: where the interpreter writes the number of each signal, a byte each.
    """
    _record(os.read(numbers, 1)[0])
    threading.Thread(target=_end_hanging, name="grace", daemon=True).start()
    while os.read(numbers, 1)[0] == signal.SIGHUP:  # the kernel and the shell both send it when a terminal is closed
        pass
    os._exit(StoppedError.exit_code)


def _end_hanging() -> None:
    deadline = time.monotonic() + GRACE_SECONDS + SAVE_SECONDS
    time.sleep(GRACE_SECONDS)
    if not save(SAVE_SECONDS):  # the main thread may still finish its work
        time.sleep(max(0.0, deadline - time.monotonic()))
    attempt(_last_words, REPORT_SECONDS)
    record_end(stopped_error(), REPORT_SECONDS)
    os._exit(StoppedError.exit_code)


@contextlib.contextmanager
def _in_mode(mode: Literal["raise", "defer"]) -> Iterator[None]:
    global _mode  # noqa: PLW0603
    previous, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = previous
