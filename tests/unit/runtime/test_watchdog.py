"""A run that gets nowhere saves what it can, and ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from job.observability.progress import Progress
from job.runtime import watchdog
from job.runtime.watchdog import StallWatch

if TYPE_CHECKING:
    import pytest

HANG = """
import threading, time
from job.observability import log; from job.runtime import signals, watchdog as stall
from job.observability.progress import Listener, Progress
log.configure(console=False)
stall.SAVE_SECONDS = stall.REPORT_SECONDS = {seconds}
def hang(*_):
    time.sleep(60)
def say(error):
    print(error.message, flush=True)
for number in range({others}):
    threading.Thread(target=hang, name=f"hanging-{{number}}", daemon=True).start()
signals._record_end = {record}
progress = Progress([stall.StallWatch(0.2, save={save}, last_words={last_words})])
hang()
"""


def hang(
    save: str, last_words: str, *, record: str = "None", others: int = 0, seconds: float = 20
) -> tuple[int, str, list[dict[str, Any]]]:
    """Let a process hang, with other threads and seconds to save and report; return its exit code, output and log."""
    code = HANG.format(save=save, last_words=last_words, record=record, others=others, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def test_silence_ends_the_process() -> None:
    """After the silence the process ends with 20, saved, all stacks logged, and its last words."""
    code, said, lines = hang("lambda seconds: print('save in', seconds) is None", "say")

    assert 20 == code
    assert "save in 20\nno progress for 0.00333333 minutes (device.stall_minutes); the state is saved\n" == said
    assert {("run.stalled", "ERROR")} == {(line["message"], line["severity"]) for line in lines}
    stacks = {name: line["stack"] for line in lines for name in line["threads"]}
    assert "in hang\n" in stacks["MainThread"]
    assert "in _watch\n" in stacks["stall"]


def test_threads_with_the_same_stack_share_a_line() -> None:
    """The threads that wait in the same place, as those of a pool do, are one line."""
    _, _, lines = hang("lambda seconds: False", "say", others=3)

    assert [["hanging-0", "hanging-1", "hanging-2"]] == [
        sorted(line["threads"]) for line in lines if "hanging-0" in line["threads"]
    ]


def test_nothing_can_be_saved() -> None:
    """Where the state cannot be saved, the message does not say that it is."""
    code, said, _ = hang("lambda seconds: False", "say")

    assert 20 == code
    assert "what was saved before is kept" in said


def test_whatever_hangs() -> None:
    """Last words that hang as well, as where the hanging thread holds a lock, do not keep the process."""
    assert 20 == hang("lambda seconds: False", "hang", seconds=0.5)[0]


def test_end_is_recorded() -> None:
    """The end of the run is stored as well, after the last words."""
    code, said, _ = hang("lambda seconds: True", "say", record="lambda error: print('recorded', error.exit_code)")

    assert 20 == code
    assert ["recorded 20"] == said.splitlines()[1:]


class Watched:
    """A watch of 0.2 s under a clock that the test sets.

    Attributes:
        progress: what it listens to.
        said: the last words.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now, self._looks = 0.0, threading.Semaphore(0)
        monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=self._monotonic))
        self.said: list[str] = []
        watch = StallWatch(
            0.2,
            save=lambda _: False,
            last_words=lambda error: self.said.append(error.message),
            exit_process=lambda _: self._looks.release(2),
        )
        self.progress = Progress([watch], clock=self._monotonic)

    def _monotonic(self) -> float:
        if threading.current_thread().name == "stall":
            self._looks.release()
        return self._now

    def wait(self, seconds: float) -> None:
        """Let time pass until the watch has seen it: looked at the clock and come back, or given up."""
        self._now += seconds
        while self._looks.acquire(blocking=False):
            pass
        for _ in range(2):
            assert self._looks.acquire(timeout=60)

    def close(self) -> None:
        """Close the watch, and wait for its thread."""
        self.progress.close()
        for thread in threading.enumerate():
            if thread.name == "stall":
                thread.join(60)


def test_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and progress of a phase are signs of life; a closed watch ends nothing."""
    watched = Watched(monkeypatch)
    with watched.progress.phase("download", 10, "images") as phase:
        for _ in range(10):
            watched.wait(0.15)
            phase.advance()
    watched.wait(0.15)
    watched.progress.event("run.succeeded")
    watched.wait(0.15)
    watched.close()

    assert [] == watched.said


def stalled_after(monkeypatch: pytest.MonkeyPatch, *events: tuple[str, dict[str, object]], silence: float) -> list[str]:
    """Let some silence follow on events; return the last words, if that ended the run."""
    watched = Watched(monkeypatch)
    for name, facts in events:
        watched.progress.event(name, **facts)
    watched.wait(silence)
    watched.close()
    return watched.said


COMPILED_AT_FIRST_USE = ("device.kernels_compiled_at_first_use", {"gpu": "NVIDIA X1"})


def test_silence_while_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """While kernels are compiled at first use, the stall limit is longer, and the message says so."""
    monkeypatch.setattr(watchdog, "COMPILING_SECONDS", 1.2)

    assert [] == stalled_after(monkeypatch, COMPILED_AT_FIRST_USE, silence=1.1)
    [message] = stalled_after(monkeypatch, COMPILED_AT_FIRST_USE, silence=1.2)
    assert "no progress for 0.02 minutes (device.stall_minutes, longer while kernels are compiled" in message


def test_limit_after_the_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of stage 1 keeps the longer limit, since stage 2 uses other kernels; one of stage 2 ends it."""
    monkeypatch.setattr(watchdog, "COMPILING_SECONDS", 60.0)
    stages = [("epoch.finished", {"stage": stage}) for stage in ("feature_extraction", "fine_tuning")]

    assert [] == stalled_after(monkeypatch, COMPILED_AT_FIRST_USE, stages[0], silence=59.0)
    [message] = stalled_after(monkeypatch, COMPILED_AT_FIRST_USE, *stages, silence=0.2)
    assert "(device.stall_minutes);" in message


def test_longer_limit_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that are compiled at first use never shorten the limit."""
    monkeypatch.setattr(watchdog, "COMPILING_SECONDS", 0.1)

    assert [] == stalled_after(monkeypatch, COMPILED_AT_FIRST_USE, silence=0.15)
    [message] = stalled_after(monkeypatch, COMPILED_AT_FIRST_USE, silence=0.2)

    assert "no progress for 0.00333333 minutes (device.stall_minutes);" in message
