"""A run that gets nowhere ends."""

from __future__ import annotations

import subprocess
import sys
import time

from job.progress import Progress
from job.stall import StallWatch


def test_silence_ends_the_process() -> None:
    """After the silence the process ends with 20, its last words said and the stacks of all threads dumped."""
    code = """
import sys, time
from job.progress import Progress
from job.stall import StallWatch
Progress([StallWatch(0.2, lambda error: print(error.message, flush=True))])
def hang():
    time.sleep(60)
hang()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (20, "no progress for 0.00333333 minutes (device.stall_minutes)\n") == (done.returncode, done.stdout)
    assert "in hang" in done.stderr


def test_signs_of_life() -> None:
    """Events and progress of a phase are signs of life; a closed watch ends nothing."""
    ended: list[int] = []
    progress = Progress([StallWatch(2.0, lambda _: None, ended.append)])
    with progress.phase("download", 10, "images") as phase:
        for _ in range(10):
            time.sleep(0.25)
            phase.advance()
    progress.event("run.succeeded")
    progress.close()
    time.sleep(2.2)

    assert [] == ended
