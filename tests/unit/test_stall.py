"""A run that gets nowhere saves what it can, and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from job import stall
from job.progress import Progress
from job.stall import StallWatch

if TYPE_CHECKING:
    import pytest

HANG = """
import threading, time
from job import log, stall
from job.progress import Listener, Progress
log.configure(console=False)
stall.SAVE_SECONDS = stall.WORDS_SECONDS = 0.5
def hang(*_):
    time.sleep(60)
def say(error):
    print(error.message, flush=True)
progress = Progress([stall.StallWatch(0.2, save={save}, last_words={last_words})])
hang()
"""


def hang(save: str, last_words: str) -> tuple[int, str, list[dict[str, Any]]]:
    """Let a process hang; return its exit code, what it printed, and its log."""
    code = HANG.format(save=save, last_words=last_words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def test_silence_ends_the_process() -> None:
    """After the silence the process ends with 20, saved, with its last words said and all stacks in one line."""
    code, said, lines = hang("lambda seconds: print('save in', seconds) is None", "say")

    assert 20 == code
    assert "save in 0.5\nno progress for 0.00333333 minutes (device.stall_minutes); the state is saved\n" == said
    [line] = lines
    assert ("run.stalled", "ERROR") == (line["message"], line["severity"])
    assert "MainThread:\n" in line["stacks"]
    assert "in hang\n" in line["stacks"]
    assert "stall:\n" in line["stacks"]


def test_nothing_can_be_saved() -> None:
    """Where the state cannot be saved, the message does not say that it is."""
    code, said, _ = hang("lambda seconds: False", "say")

    assert 20 == code
    assert "what was saved before is kept" in said


def test_whatever_hangs() -> None:
    """Last words that hang as well, as where the hanging thread holds a lock, do not keep the process."""
    assert 20 == hang("lambda seconds: False", "hang")[0]


def test_signs_of_life() -> None:
    """Events and progress of a phase are signs of life; a closed watch ends nothing."""
    ended: list[int] = []
    watch = StallWatch(2.0, save=lambda _: False, last_words=lambda _: None, end=ended.append)
    progress = Progress([watch])
    with progress.phase("download", 10, "images") as phase:
        for _ in range(10):
            time.sleep(0.25)
            phase.advance()
    progress.event("run.succeeded")
    progress.close()
    time.sleep(2.2)

    assert [] == ended


def stalled_after(*events: tuple[str, dict[str, object]], seconds: float) -> list[str]:
    """Watch for 0.2 s of silence, or 1 s while kernels are compiled; return the error if it ends within `seconds`."""
    said: list[str] = []
    ended = threading.Event()
    watch = StallWatch(
        0.2, save=lambda _: False, last_words=lambda error: said.append(error.message), end=lambda _: ended.set()
    )
    progress = Progress([watch])
    for name, facts in events:
        progress.event(name, **facts)
    ended.wait(seconds)
    progress.close()
    return said


COMPILED_AT_FIRST_USE = ("device.kernels_compiled_at_first_use", {"gpu": "NVIDIA X1"})


def test_silence_while_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kernels are compiled at first use, only a longer silence ends the process, and the message says so."""
    monkeypatch.setattr(stall, "COMPILING_SECONDS", 1.2)

    assert [] == stalled_after(COMPILED_AT_FIRST_USE, seconds=0.8)
    [message] = stalled_after(COMPILED_AT_FIRST_USE, seconds=10)
    assert "no progress for 0.02 minutes (device.stall_minutes, longer while kernels are compiled" in message


def test_limit_after_the_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of stage 1 keeps the longer limit, since stage 2 uses other kernels; one of stage 2 ends it."""
    monkeypatch.setattr(stall, "COMPILING_SECONDS", 60.0)
    stages = [("epoch.finished", {"stage": stage}) for stage in ("feature_extraction", "fine_tuning")]

    assert [] == stalled_after(COMPILED_AT_FIRST_USE, stages[0], seconds=1.0)
    [message] = stalled_after(COMPILED_AT_FIRST_USE, *stages, seconds=10)
    assert "(device.stall_minutes);" in message


def test_longer_limit_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are compiled at first use never shorten the limit."""
    monkeypatch.setattr(stall, "COMPILING_SECONDS", 0.1)

    [message] = stalled_after(COMPILED_AT_FIRST_USE, seconds=10)

    assert "no progress for 0.00333333 minutes (device.stall_minutes);" in message
