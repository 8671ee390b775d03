"""The runs of an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from listed_runs import NOW, begin, days_ago, point_to, publish

from job import storage
from job.errors import DataError
from job.observability.progress import Progress
from job.runs.inventory import Inventory, parse_time, read_inventory

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an empty output."""
    return storage.open_store(str(tmp_path / "out"))


def read(output: Store) -> Inventory:
    """Return the runs."""
    return read_inventory(output, Progress(), now=NOW)


def test_published_runs(output: Store) -> None:
    """Published runs are listed, the newest first, with the one that latest.json names."""
    for run_id, days in (("a", 3), ("b", 1), ("c", 2)):
        publish(output, run_id, days=days)
    point_to(output, "c", pinned=True)

    found = read(output)

    assert ["b", "c", "a"] == [run.run_id for run in found.runs]
    assert {"published"} == {run.state for run in found.runs}
    assert [("c", True)] == [(run.run_id, run.is_pinned) for run in found.runs if run.is_latest]
    assert (2.0, 5.0, None) == (found.runs[0].gpu_hours(), found.runs[0].cost(2.5), found.runs[0].cost(None))


def test_one_request_a_run(output: Store) -> None:
    """One listing and latest.json, and one read of each published run; an unfinished one takes another."""
    for number in range(5):
        publish(output, f"run-{number}")
    begin(output, "unfinished")
    counted = Counting(output)

    read(counted)

    assert {"folders": 1, "read": 1 + 5 + 2} == counted.calls


class Counting:
    """A store that counts its calls."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.uri = store.uri
        self.calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        self.calls[name] = self.calls.get(name, 0) + 1
        return getattr(self._store, name)


def test_a_run_without_an_overview(output: Store) -> None:
    """The overview of a run that was published without one is made from its other files."""
    publish(output, "with", starts=2)
    publish(output, "without", starts=2, with_overview=False)

    with_, without = sorted(read(output).runs, key=lambda run: run.run_id)

    assert with_.overview
    assert without.overview
    assert with_.overview.model_copy(update={"run_id": "without"}) == without.overview


@pytest.mark.parametrize(
    ("state", "days", "expected"),
    [
        ("running", 0, "running"),
        ("running", 1, "interrupted"),
        ("stopped", 1, "stopped"),
        ("failed", 1, "failed"),
        ("succeeded", 0, "incomplete"),
    ],
)
def test_unfinished_runs(output: Store, state: str, days: float, expected: str) -> None:
    """An unfinished run has the state of its status.json; one that reports nothing any more is interrupted."""
    begin(output, "a", state, days=days, stage="fine_tuning", epoch=3)

    [run] = read(output).runs

    assert (expected, 3, None) == (run.state, run.status["epoch"], run.overview)
    assert parse_time(days_ago(days)) == run.at


def test_a_run_without_status(output: Store) -> None:
    """A run that has reported nothing yet, or is half deleted, is incomplete."""
    output.write("runs/a/config.json", b"{}")

    assert ["incomplete"] == [run.state for run in read(output).runs]


@pytest.mark.parametrize(
    ("name", "data", "detail"),
    [
        ("_SUCCESS", b"", "_SUCCESS is unreadable"),
        ("_SUCCESS", b'{"manifest_sha256": "' + b"0" * 64 + b'"}', "manifest.json is not the one"),
        ("status.json", b"{", "status.json is unreadable"),
        ("status.json", b"[]", "status.json is unreadable"),
    ],
)
def test_unreadable_runs(output: Store, name: str, data: bytes, detail: str) -> None:
    """A damaged run is listed with the reason, and the others beside it."""
    publish(output, "b")
    output.write(f"runs/a/{name}", data)

    found = {run.run_id: run for run in read(output).runs}

    assert {"a": "unreadable", "b": "published"} == {name: run.state for name, run in found.items()}
    assert found["a"].detail.startswith(detail)


def test_a_copy_and_a_name_that_is_no_id(output: Store) -> None:
    """A copy of a run under another name, and a folder that is no run, are listed as such."""
    publish(output, "a")
    output.write("runs/copy/_SUCCESS", output.read("runs/a/_SUCCESS")[0])
    output.write("runs/x y/_SUCCESS", b"{}")

    found = {run.run_id: run.detail for run in read(output).runs}

    assert "as a at" in found["copy"]
    assert "not the ID" in found["x y"]


def test_unreadable_latest(output: Store) -> None:
    """An unreadable latest.json is reported, and does not hide the runs."""
    publish(output, "a")
    output.write("latest.json", b"{")

    found = read(output)

    assert (None, ["a"]) == (found.latest, [run.run_id for run in found.runs])
    assert "latest.json is unreadable" in found.latest_problem


def test_no_output(output: Store) -> None:
    """A place without runs is exit code 3, and names it."""
    with pytest.raises(DataError, match="is no output") as caught:
        read(output)
    assert output.uri in caught.value.message


@pytest.mark.parametrize("text", [None, 3, "", "yesterday", "2026-01-01T00:00:00"])
def test_times(text: object) -> None:
    """What is no time, or has no zone, is none."""
    assert parse_time(text) is None
