"""What SIGTERM, SIGINT and SIGHUP do, at each time of a process."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from job.runtime import signals

HANG = 60
"""Seconds after which a hang in a test ends: a process that has ended before was not waiting for it."""

PRELUDE = f"""
import ctypes, os, signal, sys, threading, time
from job.runtime import signals
HANG = {HANG}
signals.GRACE_SECONDS, signals.SAVE_SECONDS, signals.REPORT_SECONDS = HANG, 0.3, 0.3
signals.install()
def say(*words):
    print(*words, flush=True)
def hang(*_):
    time.sleep(HANG)
def hang_in_native_code():
    mutex = ctypes.create_string_buffer(64)  # zeros are an unlocked one
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)  # no signal interrupts it
def ready_again():
    def watch():
        while not signals.received():
            time.sleep(0.01)
        say("ready")
    threading.Thread(target=watch, daemon=True).start()
def cut_off_here():
    try:
        say("ready")  # inside: the signal may come before this returns
        hang()
    except KeyboardInterrupt:
        say("interrupted by", signals.received())
        hang()
"""


def stop(code: str, *numbers: signal.Signals, within: tuple[str, ...] = ()) -> tuple[int, str, float]:
    """Run code, and send it a signal whenever it says "ready"; stdin ends when all are sent.

    Args:
        code: follows PRELUDE.
        numbers: the signals.
        within: a command that starts the process.

    Returns:
        The exit code, what it said after the last "ready", and the seconds from the first signal to the end.
    """
    command = [*within, sys.executable, "-c", PRELUDE + code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        started = time.monotonic()
        process.send_signal(numbers[0])
        for number in numbers[1:]:
            assert "ready\n" in iter(process.stdout.readline, ""), process.wait(HANG)
            process.send_signal(number)
        process.stdin.close()
        said = process.stdout.read()
        return process.wait(HANG), said, time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_at_the_start(number: signal.Signals) -> None:
    """Before anything has begun, either signal ends the process at once with 75."""
    code, said, seconds = stop("say('ready'); hang(); say('not reached')", number)

    assert (75, "") == (code, said)
    assert seconds < HANG


def test_interrupting() -> None:
    """What the next start does again is left by KeyboardInterrupt, and the signal's name is known."""
    code, said, _ = stop(
        """
with signals.interrupting(lambda: say("last words")):
    try:
        say("ready")
        hang()
    except KeyboardInterrupt:
        say("left by", signals.received())
sys.exit(signals.exit_now(3))
""",
        signal.SIGTERM,
    )

    assert (3, "left by SIGTERM\n") == (code, said)


def test_hangup_comes_more_than_once() -> None:
    """The kernel and the shell both send SIGHUP when a terminal is closed: only the first one counts."""
    code, said, _ = stop(
        """
with signals.interrupting(int), signals.deferred():
    ready_again()
    say("ready")
    sys.stdin.read()
    say("finished the step after", signals.received())
sys.exit(signals.exit_now(75))
""",
        signal.SIGHUP,
        signal.SIGHUP,
    )

    assert (75, "finished the step after SIGHUP\n") == (code, said)


def test_ignored_hangup() -> None:
    """Under nohup SIGHUP is ignored from the start, and stays so."""
    code, said, _ = stop(
        """
with signals.interrupting(int):
    say("ready")
    sys.stdin.read()
    say("received", signals.received())
sys.exit(signals.exit_now(3))
""",
        signal.SIGHUP,
        within=("nohup",),
    )

    assert (3, "received None\n") == (code, said)


def test_deferred() -> None:
    """A step is not disturbed: it asks whether a signal came, and ends by itself."""
    code, said, _ = stop(
        """
with signals.interrupting(int), signals.deferred():
    say("ready")
    while not signals.received():
        time.sleep(0.01)
    say("finished the step")
sys.exit(signals.exit_now(75))
""",
        signal.SIGTERM,
    )

    assert (75, "finished the step\n") == (code, said)


@pytest.mark.parametrize("mode", ["interrupting(lambda: say('last words'))", "deferred()"])
def test_cut_off(mode: str) -> None:
    """What hangs is cut off: what can be saved is saved first, and the last words are said."""
    code, said, seconds = stop(
        f"""
signals.GRACE_SECONDS = 0.2
with signals.interrupting(lambda: say('last words')), signals.saving(lambda seconds: say('save in', seconds)):
    with signals.{mode}:
        cut_off_here()
""",
        signal.SIGTERM,
    )

    assert 75 == code
    assert ["save in 0.3", "last words"] == said.splitlines()[-2:]
    assert ("interrupted by SIGTERM" in said) == mode.startswith("interrupting")
    assert seconds < HANG


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)])
@pytest.mark.parametrize("mode", ["interrupting(lambda: say('last words'))", "deferred()"])
def test_cut_off_from_native_code(mode: str, numbers: tuple[signal.Signals, ...]) -> None:
    """The main thread need not answer: it may hang in a library, as where a driver or the input does not return."""
    code, said, seconds = stop(
        f"""
signals.GRACE_SECONDS = {0.2 if len(numbers) == 1 else HANG}
ready_again()
with signals.interrupting(lambda: say("last words")), signals.saving(lambda seconds: say("save", signals.received())):
    with signals.{mode}:
        try:
            say("ready")  # inside: the signal may come before this returns
            hang_in_native_code()
        except KeyboardInterrupt:
            hang_in_native_code()
""",
        *numbers,
    )

    assert 75 == code
    assert ("save SIGTERM" in said and "last words" in said) == (len(numbers) == 1)
    assert seconds < HANG


def test_cut_off_from_what_hangs_too() -> None:
    """Saving and last words that hang do not keep the process."""
    code, _, seconds = stop(
        """
signals.GRACE_SECONDS = 0.2
with signals.interrupting(hang), signals.saving(lambda seconds: signals.attempt(hang, seconds)), signals.deferred():
    say("ready")
    hang()
""",
        signal.SIGTERM,
    )

    assert 75 == code
    assert seconds < HANG


@pytest.mark.parametrize("mode", ["interrupting(int)", "deferred()"])
def test_second_signal(mode: str) -> None:
    """A second signal ends the process at once, also with 75."""
    code, said, seconds = stop(
        f"""
ready_again()
with signals.{mode}:
    cut_off_here()
    say("not reached")
""",
        signal.SIGTERM,
        signal.SIGINT,
    )

    assert 75 == code
    assert "not reached" not in said
    assert seconds < HANG


@pytest.mark.parametrize("record", ["lambda error: say(error.exit_code, error.message)", "hang"])
def test_end_is_recorded_before_it_is_cut_off(record: str) -> None:
    """Before a hanging process is ended, its end is recorded, for a limited time."""
    code, said, seconds = stop(
        f"""
signals.GRACE_SECONDS = 0.2
with signals.interrupting(lambda: say("last words")), signals.recording({record}), signals.deferred():
    say("ready")
    hang()
""",
        signal.SIGTERM,
    )

    assert 75 == code
    recorded = ["75 stopped by SIGTERM; what was saved is kept"] if record != "hang" else []
    assert ["last words", *recorded] == said.splitlines()
    assert seconds < HANG


def test_after_the_end() -> None:
    """A signal after the last word changes nothing: the process ends with the code of its work."""
    code, _, _ = stop(
        """
code = signals.exit_now(6)
say("ready")
sys.stdin.read()
sys.exit(code)
""",
        signal.SIGTERM,
    )

    assert 6 == code


def test_modes_end() -> None:
    """What a block registers counts as long as it lasts, also where it fails."""
    with contextlib.suppress(ZeroDivisionError), signals.saving(lambda seconds: seconds > 1):
        assert [False, True] == [signals.save(0.5), signals.save(1.5)]
        raise ZeroDivisionError
    assert not signals.save(1.5)

    recorded: list[int] = []
    with contextlib.suppress(ZeroDivisionError), signals.recording(lambda error: recorded.append(error.exit_code)):
        signals.record_end(signals.stopped_error(), 20)
        raise ZeroDivisionError
    signals.record_end(signals.stopped_error(), 20)
    assert [75] == recorded


def test_attempt() -> None:
    """An attempt is given up after its time; one that fails did not come to its end."""
    caught: list[object] = []
    hangs = threading.Event()
    hook, threading.excepthook = threading.excepthook, caught.append
    try:
        results = [
            signals.attempt(lambda: None, HANG),
            signals.attempt(hangs.wait, 0.1),
            signals.attempt(lambda: 1 / 0, HANG),
        ]
    finally:
        hangs.set()
        threading.excepthook = hook

    assert [True, False, False] == results
    assert 1 == len(caught)
