"""What SIGTERM and SIGINT do, at each time of a process."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from job.runtime import signals

PRELUDE = """
import os, signal, sys, threading, time
from job.runtime import signals
signals.GRACE_SECONDS, signals.SAVE_SECONDS, signals.REPORT_SECONDS = 0.2, 0.3, 0.3
signals.install()
def say(*words):
    print(*words, flush=True)
def hang(*_):
    time.sleep(30)
def cut_off_here():
    try:
        say("ready")  # inside: the signal may come before this returns
        hang()
    except KeyboardInterrupt:
        say("interrupted by", signals.received())
        hang()
"""


def stop(code: str, *numbers: signal.Signals) -> tuple[int, str, float]:
    """Run code until it says "ready", send signals; return exit code, what it said then, and the seconds it took."""
    command = [sys.executable, "-c", PRELUDE + code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        started = time.monotonic()
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.05)  # or else the system hands over only one of two that are the same
        said = process.stdout.read()
        return process.wait(20), said, time.monotonic() - started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_at_the_start(number: signal.Signals) -> None:
    """Before anything has begun, either signal ends the process at once with 75."""
    code, said, seconds = stop("say('ready'); hang(); say('not reached')", number)

    assert (75, "") == (code, said)
    assert seconds < 5


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
with signals.interrupting(lambda: say('last words')), signals.saving(lambda seconds: say('save in', seconds)):
    with signals.{mode}:
        cut_off_here()
""",
        signal.SIGTERM,
    )

    assert 75 == code
    assert ["save in 0.3", "last words"] == said.splitlines()[-2:]
    assert ("interrupted by SIGTERM" in said) == mode.startswith("interrupting")
    assert seconds < 8


def test_cut_off_from_what_hangs_too() -> None:
    """Saving and last words that hang do not keep the process."""
    code, _, seconds = stop(
        """
with signals.interrupting(hang), signals.saving(lambda seconds: signals.attempt(hang, seconds)), signals.deferred():
    say("ready")
    hang()
""",
        signal.SIGTERM,
    )

    assert 75 == code
    assert seconds < 8


@pytest.mark.parametrize("mode", ["interrupting(int)", "deferred()"])
def test_second_signal(mode: str) -> None:
    """A second signal ends the process at once, also with 75."""
    code, said, seconds = stop(
        f"""
signals.GRACE_SECONDS = 60
with signals.{mode}:
    cut_off_here()
    say("not reached")
""",
        signal.SIGTERM,
        signal.SIGINT,
    )

    assert 75 == code
    assert "not reached" not in said
    assert seconds < 8


def test_after_the_end() -> None:
    """A signal after the last word changes nothing: the process ends with the code of its work."""
    code, _, _ = stop(
        """
code = signals.exit_now(6)
say("ready")
time.sleep(0.3)
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


def test_attempt() -> None:
    """An attempt is given up after its time; one that fails did not come to its end."""
    caught: list[object] = []
    hook, threading.excepthook = threading.excepthook, caught.append
    try:
        results = [
            signals.attempt(lambda: None, 5),
            signals.attempt(lambda: time.sleep(1), 0.1),
            signals.attempt(lambda: 1 / 0, 5),
        ]
    finally:
        threading.excepthook = hook

    assert [True, False, False] == results
    assert 1 == len(caught)
