"""The record of a Job: what is left when its Pods are gone."""

from __future__ import annotations

import contextlib
import json
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from job import errors, storage
from job.config.settings import RunSettings
from job.runs.job_record import MAX_ATTEMPTS, MAX_STOPS, JobRecord
from job.runtime import signals

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = RunSettings(job_uid="uid-1", job_name="flowers-1", namespace="ml", node="gpu-7", image="finetune:1")


def record(folder: Path, settings: RunSettings = SETTINGS) -> JobRecord:
    """Return the record, as one Pod sees it."""
    return JobRecord(storage.open_store(str(folder)), settings)


def read(folder: Path) -> dict[str, Any]:
    """Return what is stored."""
    document: dict[str, Any] = json.loads((folder / "jobs/uid-1.json").read_text())
    return document


def test_attempts(tmp_path: Path) -> None:
    """Each start has its node, times, exit code, reason, remedy and GPU seconds; one that was killed has no end."""
    record(tmp_path).attempt().__enter__()
    with pytest.raises(errors.DataError), record(tmp_path).attempt():
        raise errors.DataError("there is no folder /in", remedy="look")
    with pytest.raises(ZeroDivisionError), record(tmp_path).attempt():
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), record(tmp_path).attempt():
        raise KeyboardInterrupt
    last = record(tmp_path)
    with last.attempt():
        last.gpus = 1

    document = read(tmp_path)
    identity = {"name": "flowers-1", "namespace": "ml", "image": "finetune:1", "run_id": None}
    assert identity == {key: document[key] for key in identity}
    killed, failed, crashed, stopped, finished = document["attempts"]
    assert {"node": "gpu-7", "ended_at": None} == {key: killed[key] for key in ("node", "ended_at")}
    assert "exit_code" not in killed
    expected = {"exit_code": 3, "reason": "Data", "message": "there is no folder /in", "remedy": "look"}
    assert expected == {key: failed[key] for key in expected}
    assert [1, 75, 0] == [attempt["exit_code"] for attempt in (crashed, stopped, finished)]
    assert (finished["seconds"], 0.0) == (finished["gpu_seconds"], failed["gpu_seconds"])
    assert finished["started_at"] <= finished["ended_at"]


def test_attempts_are_limited(tmp_path: Path) -> None:
    """Of a Job with many starts the newest are kept."""
    (tmp_path / "jobs").mkdir()
    attempts = [{"node": f"n{number}"} for number in range(MAX_ATTEMPTS)]
    (tmp_path / "jobs/uid-1.json").write_text(json.dumps({"run_id": "r", "attempts": attempts}))
    with record(tmp_path).attempt():
        pass

    document = read(tmp_path)
    assert ("r", MAX_ATTEMPTS) == (document["run_id"], len(document["attempts"]))
    assert ["n1", "gpu-7"] == [document["attempts"][index]["node"] for index in (0, -1)]


def test_resumed(tmp_path: Path) -> None:
    """A start records from which checkpoint it resumes, and its end beside it; other starts are untouched."""
    record(tmp_path).attempt().__enter__()
    second = record(tmp_path)
    with second.attempt():
        second.resumed("2026-01-01T00:00:00Z")
    third = record(tmp_path)
    with third.attempt():
        third.resumed(None)
        attempts = third.attempts()

    assert attempts is not None
    assert ["resumed_from" in attempt for attempt in attempts] == [False, True, True]
    assert ["2026-01-01T00:00:00Z", None] == [attempt["resumed_from"] for attempt in attempts[1:]]
    assert [None, 0, 0] == [attempt.get("exit_code") for attempt in read(tmp_path)["attempts"]]


def test_end_in_place_of_the_main_thread(tmp_path: Path) -> None:
    """What ends a hanging process records the end of this start, as a stall or a signal."""
    with contextlib.suppress(KeyboardInterrupt), record(tmp_path).attempt():
        signals.record_end(errors.StallError("no progress", remedy="look"), 20)
        [attempt] = read(tmp_path)["attempts"]
        raise KeyboardInterrupt

    assert (20, "Stall", "no progress") == tuple(attempt[key] for key in ("exit_code", "reason", "message"))
    assert attempt["ended_at"]


def stop(folder: Path, resumed_from: str | None = "", *, loses_cache: bool = True) -> None:
    """Begin a start, and have it stopped by a signal; with an empty text before it has looked for a checkpoint."""
    job = JobRecord(storage.open_store(str(folder)), SETTINGS, loses_cache=loses_cache)
    with contextlib.suppress(KeyboardInterrupt), job.attempt():
        if resumed_from != "":
            job.resumed(resumed_from)
        raise KeyboardInterrupt


STOPS: dict[str, list[str | None]] = {
    "before the first checkpoint": [None],
    "before it is looked for": [""],
    "at different times": [None, "", ""],
    "at the same checkpoint": ["2026-01-01T00:00:00Z"],
}


@pytest.mark.parametrize("places", STOPS.values(), ids=STOPS)
def test_stops_without_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[str | None]) -> None:
    """A Job whose starts are all stopped at the same place, as by evictions for local disk, ends: each would be."""
    monkeypatch.setattr(signals, "_received", SIGTERM)
    for number in range(MAX_STOPS):
        stop(tmp_path, places[number % len(places)])

    with pytest.raises(errors.SettingsError, match="10 starts") as caught:
        stop(tmp_path, places[0])

    assert "local disk" in caught.value.remedy
    attempts = read(tmp_path)["attempts"]
    assert (["SIGTERM"] * MAX_STOPS, 2) == ([item["signal"] for item in attempts[:-1]], attempts[-1]["exit_code"])


def test_stops_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job continues that saves progress, or whose cache outlives the Pod; stops without a signal do not count."""
    for number in range(2 * MAX_STOPS):  # another owner works on the run, or the Pod was superseded
        stop(tmp_path, None)
        assert number + 1 == len(read(tmp_path)["attempts"])
    monkeypatch.setattr(signals, "_received", SIGTERM)
    for number in range(2 * MAX_STOPS):
        stop(tmp_path, f"2026-01-01T00:00:{number // (MAX_STOPS - 1):02}Z")
    for _ in range(MAX_STOPS):
        stop(tmp_path, None, loses_cache=False)
    stop(tmp_path, None, loses_cache=False)


def test_without_a_job(tmp_path: Path) -> None:
    """Outside Kubernetes nothing is recorded."""
    outside = record(tmp_path, RunSettings())
    with outside.attempt():
        outside.pin("a", has_begun=lambda _: True)
        outside.resumed(None)

    assert outside.attempts() is None
    assert outside.run_id() is None
    assert not list(tmp_path.iterdir())


def test_pin(tmp_path: Path) -> None:
    """The run is recorded beside the attempts; a run that has begun is never replaced."""
    with record(tmp_path).attempt():
        record(tmp_path).pin("a", has_begun=lambda _: False)
        record(tmp_path).pin("b", has_begun=lambda _: False)
        with pytest.raises(errors.StoppedError, match="has just begun the run 'b'"):
            record(tmp_path).pin("c", has_begun=lambda run_id: run_id == "b")

    assert "b" == record(tmp_path).run_id()
    assert 1 == len(read(tmp_path)["attempts"])


@pytest.mark.parametrize("content", [b"", b"{}", b'{"run_id": "a", "attempts": 5}', b'{"run_id": ["a"]}'])
def test_unreadable(tmp_path: Path, content: bytes) -> None:
    """A record that is empty or foreign ends with exit code 3, naming the file and the remedy."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/uid-1.json").write_bytes(content)

    with pytest.raises(errors.DataError, match=f"{tmp_path}/jobs/uid-1.json is unreadable") as caught:
        record(tmp_path).attempt().__enter__()
    assert "delete it" in caught.value.remedy


def test_end_that_cannot_be_recorded(tmp_path: Path) -> None:
    """It is a warning: how the run ended is what counts."""
    with capture_logs() as lines, record(tmp_path).attempt():
        (tmp_path / "jobs/uid-1.json").write_bytes(b"")

    assert ["job.end_not_recorded"] == [line["event"] for line in lines]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.DataError("no images", remedy="look"), errors.DataError),
        (errors.GateError("too low", remedy="look"), errors.GateError),
        (errors.UnavailableError("no network", remedy="wait"), None),
        (errors.StoppedError("stopped", remedy=""), None),
        (errors.PeerLostError("worker 1", remedy=""), None),
        (ZeroDivisionError(), None),
    ],
)
def test_failure(error: Exception, kind: type[errors.FinetuneError] | None, tmp_path: Path) -> None:
    """An end that every further start would repeat is one for the Job's other workers as well."""
    assert record(tmp_path).failure() is None
    with pytest.raises(type(error)), record(tmp_path).attempt():
        raise error
    failure = record(tmp_path).failure()

    assert kind == (type(failure) if failure else None)
    record(tmp_path).attempt().__enter__()
    assert record(tmp_path).failure() is None
