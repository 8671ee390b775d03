"""`finetune watch`: a Job is followed to its end despite evictions and lost Pods, a run by its status.json."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from job.observability.progress import Event, Listener
from job.watch import follow
from job.watch.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_status(folder: Path, **facts: object) -> None:
    """Write a status.json into a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new").write_text(json.dumps({"started_at": "2026-01-01T00:00:00Z", "run_uri": str(folder), **facts}))
    (folder / "new").rename(folder / "status.json")


WATCH = """
from job import __main__; from job.watch import follow as watch
watch._STATUS_INTERVAL = 0.05
raise SystemExit(__main__.main())
"""
"""The program `finetune`, which looks for news at shorter intervals."""


def watching(folder: Path) -> subprocess.Popen[str]:
    """Watch a run's folder in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNE_")}
    return subprocess.Popen(
        [sys.executable, "-c", WATCH, "watch", str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"state": "succeeded", "message": "published"}, 0),
        ({"state": "failed", "reason": "Data", "message": "no pictures", "remedy": "add some"}, 3),
        ({"state": "failed", "reason": "Unexpected"}, 1),
    ],
)
def test_a_run_that_has_ended(tmp_path: Path, facts: dict[str, object], code: int) -> None:
    """A run by its folder or URI: watch reports how it ended, and exits as it did."""
    write_status(tmp_path / "run", **facts)

    done = watching(tmp_path / "run")
    _, said = done.communicate(timeout=60)

    assert code == done.returncode
    assert str(facts.get("message", "run.failed")) in said


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    """A run under way is followed until its end."""
    write_status(tmp_path / "run", state="running", stage="fine_tuning", epoch=1, epochs=2)
    process = watching(tmp_path / "run")
    assert process.stderr
    while "stage.started" not in process.stderr.readline():
        pass

    write_status(tmp_path / "run", state="succeeded")

    assert 0 == process.wait(60)


class Watch(Listener):
    """Follows a run under a clock that only sleeping advances, and remembers its own events, each with its time.

    Args:
        news: writes of status.json, by their time.
    """

    def __init__(self, news: dict[float, Callable[[], object]] | None = None) -> None:
        self._now = 0.0
        self._news = news or {}
        self.events: list[tuple[float, str, object]] = []

    def on_event(self, event: Event) -> None:
        """Remember it, unless it is the run's."""
        if event.name in ("watch.waiting", "run.silent"):
            self.events.append((self._now, event.name, event.facts.get("message")))

    def follow(self, folder: Path) -> int:
        """Follow the run to its end; return the exit code."""
        replay = Replay([self], phases=False)
        return follow._follow_run(str(folder), replay, clock=lambda: self._now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self._now += seconds
        for due in [time for time in self._news if time <= self._now]:
            self._news.pop(due)()


POLL_SECONDS = 5.0
"""Seconds between two reads of status.json."""


@pytest.mark.parametrize(
    ("state", "code", "since", "reason"),
    [("running", 20, 60.0, "no news for 60 seconds"), ("stopped", 75, 0.0, "the run has stopped")],
)
def test_silent_run(tmp_path: Path, state: str, code: int, since: float, reason: str) -> None:
    """The wait for a silent run is reported once; watching then ends with 75 if the run has stopped, else with 20."""
    write_status(tmp_path / "run", state=state)
    watch = Watch()

    assert code == watch.follow(tmp_path / "run")
    assert [
        (since, "watch.waiting", f"{reason}: waiting up to 15 minutes for it to continue"),
        (follow.MAX_SILENCE + POLL_SECONDS, "run.silent", None),
    ] == watch.events


def test_stopped_run_that_is_resumed(tmp_path: Path) -> None:
    """The next start of a stopped run is followed like the first; each wait is reported."""
    news = {
        n * 800.0: functools.partial(write_status, tmp_path, state=state, number=n)
        for n, state in enumerate(("stopped", "running", "stopped", "succeeded"))
    }
    news.pop(0.0)()
    watch = Watch(news)

    assert 0 == watch.follow(tmp_path)
    assert [0.0, 860.0, 1600.0] == [time for time, name, _ in watch.events if name == "watch.waiting"]


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C ends the watching with 130, and the message does not claim that the run continues."""
    write_status(tmp_path / "run", state="stopped")
    process = watching(tmp_path / "run")
    assert process.stderr
    assert any("watch.waiting" in line for line in process.stderr)

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert 130 == process.returncode
    assert "no longer watching; this has no effect on the run" in said


def test_output(tmp_path: Path) -> None:
    """Of the folder that runs are published to, the newest run is followed."""
    for age, (name, state) in enumerate([("b", "succeeded"), ("a", "failed")]):
        write_status(tmp_path / "runs" / name, state=state)
        os.utime(tmp_path / "runs" / name / "status.json", (1e9 - age, 1e9 - age))

    assert 0 == Watch().follow(tmp_path)


def test_no_run(tmp_path: Path) -> None:
    """Where there is no run, that is said at once, with what its URI looks like."""
    process = watching(tmp_path / "nothing")
    _, said = process.communicate(timeout=60)

    assert 3 == process.returncode
    assert "/runs/ID" in said
