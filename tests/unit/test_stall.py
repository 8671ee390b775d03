"""A run that gets nowhere saves what it can, and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from job.progress import Progress
from job.stall import StallWatch

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
