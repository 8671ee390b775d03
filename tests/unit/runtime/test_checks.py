"""Checks, each within a time limit."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from job.errors import AccessError, DataError, DeviceError, FinetuneError, SettingsError, UnavailableError
from job.runtime import checks, signals
from job.runtime.checks import Check, Finding, Group

SECONDS = 30.0


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return an event that is not set, for a check to wait for."""
    monkeypatch.setattr(signals, "leave_threads", int)  # this process must end as usual
    return threading.Event()


def fail(error: Exception) -> str:
    """Fail as a check."""
    raise error


def test_findings() -> None:
    """A text is in order, an error fails the check with its code and remedy, a bug in a check hides no other check."""
    reported: list[tuple[str, Finding]] = []
    skipped = Finding("skipped", "no bucket", "name one")
    group = Group(
        [
            Check("text", lambda: "all of it"),
            Check("error", lambda: fail(DataError("empty", remedy="fill it"))),
            Check("bug", lambda: fail(ZeroDivisionError("0"))),
            Check("skipped", lambda: skipped),
        ]
    )

    found = checks.carry_out([group], SECONDS, lambda name, finding: reported.append((name, finding)))

    assert [Finding("ok", "all of it"), Finding("failed", "empty", "fill it", 3)] == found[:2]
    assert ("failed", "ZeroDivisionError: 0", 1) == (found[2].verdict, found[2].detail, found[2].exit_code)
    assert skipped == found[3]
    assert list(zip(["text", "error", "bug", "skipped"], found, strict=True)) == reported


def test_one_that_hangs(hangs: threading.Event) -> None:
    """What hangs fails with code 20; the rest of its group is skipped, the other groups are carried out."""
    cleaned = threading.Event()
    hanging = Group([Check("first", lambda: str(hangs.wait()), "wake it"), Check("second", lambda: "")], cleaned.set)

    found = checks.carry_out([hanging, Group([Check("other", lambda: "")])], 0.1, lambda *_: None)

    assert Finding("failed", "no answer within 0.1 s", "wake it", 20) == found[0]
    assert ["failed", "skipped", "ok"] == [finding.verdict for finding in found]
    assert cleaned.is_set()
    hangs.set()


def test_a_limit_of_its_own(hangs: threading.Event) -> None:
    """A check may have more time than the others; each one's time begins when the one before it ends."""
    slow = Group([Check("slow", lambda: str(hangs.wait(0.1)), seconds=SECONDS), Check("next", lambda: "")])

    assert ["ok", "ok"] == [finding.verdict for finding in checks.carry_out([slow], 0.05, lambda *_: None)]


def test_cleaned_up_in_any_case() -> None:
    """A group is cleaned up after its last check; and, where it is interrupted, after the check that is running."""
    done: list[str] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def check(name: str) -> Check:
        return Check(name, lambda: done.append(name) or str(threading.Event().wait(0.02)))

    group = Group([check("first"), check("second"), check("third")], lambda: done.append("cleaned"))
    checks.carry_out([group], SECONDS, lambda *_: None)
    assert ["first", "second", "third", "cleaned"] == done
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        checks.carry_out([group], SECONDS, interrupt)

    assert ("cleaned", False) == (done[-1], "third" in done)


def test_a_pool_that_hangs_does_not_delay_the_end() -> None:
    """The process ends although a thread of a pool hangs, for which the interpreter would wait."""
    program = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from job.runtime import checks, signals
hang = lambda: str(ThreadPoolExecutor(1).submit(threading.Event().wait).result())
found = checks.carry_out([checks.Group([checks.Check("hangs", hang)])], 0.1, print)
sys.exit(signals.exit_now(checks.worst(found)))
"""
    assert 20 == subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([UnavailableError], 20),
        ([DeviceError, UnavailableError], 4),
        ([UnavailableError, FinetuneError], 1),
        ([DeviceError, AccessError, UnavailableError], 5),
        ([DataError, AccessError], 3),
        ([DeviceError, DataError, SettingsError], 2),
    ],
)
def test_worst(errors: list[type[FinetuneError]], code: int) -> None:
    """Failures that every retry repeats come first, then the others; among each the lowest code."""
    findings = [checks.failed(error("", remedy="")) for error in errors]

    assert code == checks.worst([Finding("ok", ""), Finding("warning", ""), *findings])
