"""status.json: its content, and how often it is written."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
from structlog.testing import capture_logs

from job.observability.progress import Progress
from job.observability.status import StatusFile

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self._looks = threading.Semaphore(0)

    def __call__(self) -> float:
        """Return the time."""
        if threading.current_thread().name == "status":
            self._looks.release()
        return self.now

    def wait_for_looks(self, count: int) -> None:
        """Wait until the thread that writes has looked at the time so often since the last call."""
        for _ in range(count):
            self._looks.acquire()


def strict(data: bytes) -> dict[str, object]:
    """Parse JSON as its standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    parsed = json.loads(data, parse_constant=refuse)
    assert isinstance(parsed, dict)
    return parsed


def status_file(write: Callable[[bytes], object], clock: Clock | None = None, patience: float = 3.0) -> StatusFile:
    """A status file of a run called r."""
    return StatusFile(
        write,
        run_id="r",
        run_uri="gs://b/runs/r",
        attempt=2,
        patience=patience,
        clock=clock or Clock(),
        now=lambda: "T",
    )


def test_the_document_says_where_the_run_is() -> None:
    """While training, status.json has the run, the stage, the epoch, the phase and the last epoch's metrics."""
    clock = Clock()
    documents: queue.Queue[bytes] = queue.Queue()
    status = status_file(documents.put, clock)
    progress = Progress([status], clock=clock)
    documents.get(timeout=60)
    progress.event("training.planned", epochs={"feature_extraction": 10, "fine_tuning": 4})
    progress.event("stage.started", stage="fine_tuning", epochs=4)
    clock.now += 10.0
    progress.event("epoch.finished", stage="fine_tuning", epoch=1, loss=float("nan"), val_accuracy=0.9)
    documents.get(timeout=60)
    with progress.phase("fine_tuning 2/4", 100, "images") as phase:
        with status._condition:  # nothing is written between the two
            clock.now += 5.0
            phase.advance(50, step=2, steps=4)
        document = strict(documents.get(timeout=60))
    progress.close()
    expected = {
        "state": "running",
        "message": None,
        "run_id": "r",
        "run_uri": "gs://b/runs/r",
        "attempt": 2,
        "started_at": "T",
        "stage": "fine_tuning",
        "epoch": 2,
        "epochs": 4,
        "epoch_total": 12,
        "epochs_total": 14,
        "eta_seconds": 25.0,
        "run_eta_seconds": 25.0,
        "phase": "fine_tuning 2/4",
        "done": 50,
        "total": 100,
        "unit": "images",
        "rate": 10.0,
        "step": 2,
        "steps": 4,
        "metrics": {
            "stage": "fine_tuning",
            "epoch": 1,
            "loss": None,
            "val_accuracy": 0.9,
            "eta_seconds": 30.0,
            "run_eta_seconds": 30.0,
        },
        "updated_at": "T",
    }
    assert expected == document


@pytest.mark.parametrize(
    ("event", "state"), [("run.succeeded", "succeeded"), ("run.failed", "failed"), ("run.stopped", "stopped")]
)
def test_the_last_document_has_the_outcome(event: str, state: str) -> None:
    """However soon after another write, closing writes the outcome, with message, reason and remedy."""
    documents: list[bytes] = []
    progress = Progress([status_file(documents.append)])
    progress.event(event, message="caf\udce9", reason="Data", remedy="do this")
    progress.close()
    last = strict(documents[-1])
    assert (state, "caf\\udce9", "Data", "do this") == (
        last["state"],
        last["message"],
        last["reason"],
        last["remedy"],
    )


def test_writes_are_at_least_five_seconds_apart() -> None:
    """Many events make one write in five seconds, of the newest state."""
    clock = Clock()
    documents: queue.Queue[bytes] = queue.Queue()
    status = status_file(documents.put, clock)
    progress = Progress([status], clock=clock)
    documents.get(timeout=60)
    clock.wait_for_looks(2)  # whether a write is due, and when the next one is
    progress.event("stage.started", stage="fine_tuning", epochs=1000)
    clock.wait_for_looks(2)  # whether it is due, and how long it is not
    for _ in range(3):
        clock.now += 1.0
        progress.event("epoch.finished")
        clock.wait_for_looks(2)
        assert documents.empty()
    for _ in range(199):
        clock.now += 0.01  # with those before, 4.99 seconds
        progress.event("epoch.finished")
    with status._condition:  # nothing is written between the two
        clock.now += 0.02
        progress.event("epoch.finished")
    assert 204 == strict(documents.get(timeout=60))["epoch"]
    progress.close()
    assert 1 == documents.qsize()


def test_ended_phase_leaves_another_under_way() -> None:
    """Where two threads each have a phase, the end of one does not remove the other from the document."""
    status = status_file(lambda _: None)
    progress = Progress([status])
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(progress.phase("decode", 10, "images"))
        second.enter_context(progress.phase("upload", 10, "files"))
        first.close()
        assert "upload" == status._document()["phase"]
    assert status._document()["phase"] is None
    progress.close()


def test_a_slow_store_holds_nobody_up() -> None:
    """While a write hangs, events return at once and closing gives up after its patience."""
    released = threading.Event()
    progress = Progress([status_file(lambda _: released.wait(30), patience=0.05)])
    progress.event("epoch.finished")
    progress.close()
    assert not released.is_set()
    released.set()


def test_failed_writes_are_logged_once() -> None:
    """A store that refuses costs one line of the log; each later document is tried all the same."""
    clock = Clock()
    tried: queue.Queue[bytes] = queue.Queue()

    def refuse(data: bytes) -> NoReturn:
        tried.put(data)
        raise OSError("no space left")

    with capture_logs() as lines:
        progress = Progress([status_file(refuse, clock)], clock=clock)
        for _ in range(3):
            tried.get(timeout=60)
            clock.now += 6.0
            progress.event("epoch.finished")
        progress.close()
    assert [("status.write_failed", "warning")] == [(line["event"], line["log_level"]) for line in lines]
