"""The command `finetune runs list`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from listed_runs import begin, point_to, publish

from job import storage
from job.commands import runs_list
from job.errors import DataError, SettingsError
from job.observability.progress import Progress
from job.runs.inventory import ListedRun

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Return the folder of an output with four runs."""
    store = storage.open_store(str(tmp_path / "out"))
    publish(store, "flowers-1", days=3, accuracy=0.95, gpu_hours=1)
    publish(store, "flowers-2", days=2, accuracy=0.9, gpu_hours=4, passed=False)
    publish(store, "cats-1", "--input.uri", "gs://other/cats", days=1, accuracy=0.8, gpu_hours=2, starts=3)
    begin(store, "birds-1", "failed", days=4, reason="Data")
    point_to(store, "flowers-1", pinned=True)
    return store.uri


@pytest.fixture
def execute(output: str, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that executes the command and returns its lines."""

    def call(*arguments: str) -> list[str]:
        assert 0 == runs_list.parse([output, *arguments]).execute(Progress())
        return capsys.readouterr().out.splitlines()

    return call


def test_table(execute: Any) -> None:
    """A run is a line: date, data, images, kept epoch, accuracy with interval, gate, starts, GPU hours, state."""
    header, first, second, third, fourth = execute()

    assert "RUN PUBLISHED DATA IMAGES KEPT ACCURACY GATE ATTEMPTS GPU H STATE" == " ".join(header.split())
    assert first.startswith("cats-1     2026-06-29 12:00  gs://other/cats ")
    assert "599     fine_tuning 9  0.800 (0.9" in first
    assert first.endswith("passed  3         2.00   published")
    assert "  failed  1         4.00   published" in second
    assert third.endswith("latest, pinned")
    assert fourth.endswith("failed, Data")


def test_cost(execute: Any) -> None:
    """With a price of an hour, each run has its cost."""
    lines = execute("--report.gpu_price_per_hour", "2.5")

    assert "COST" in lines[0]
    assert "2.00   5.00 " in lines[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--state", "published"], ["cats-1", "flowers-2", "flowers-1"]),
        (["--state", "failed"], ["birds-1"]),
        (["--gate", "failed"], ["flowers-2"]),
        (["--gate", "passed", "--data", "flowers"], ["flowers-1"]),
        (["--data", "other/cats"], ["cats-1"]),
        (["--since", "2026-06-28T12:00:00"], ["cats-1", "flowers-2"]),
        (["--sort", "accuracy"], ["flowers-1", "flowers-2", "cats-1", "birds-1"]),
        (["--sort", "gpu-hours", "--limit", "2"], ["flowers-2", "cats-1"]),
        (["--sort", "attempts", "--limit", "1"], ["cats-1"]),
        (["--sort", "id"], ["birds-1", "cats-1", "flowers-1", "flowers-2"]),
        (["--sort", "images", "--limit", "1"], ["cats-1"]),
        (["--limit", "1"], ["cats-1"]),
    ],
)
def test_filters(execute: Any, arguments: list[str], expected: list[str]) -> None:
    """Conditions select, an order sorts, and a limit cuts off."""
    document = json.loads("\n".join(execute(*arguments, "--json")))

    assert expected == [run["run_id"] for run in document["runs"]]


def test_json(execute: Any, output: str) -> None:
    """The document has latest.json, and of each run its overview or its status, with GPU hours and cost."""
    document = json.loads("\n".join(execute("--json", "--report.gpu_price_per_hour", "2")))

    assert (output, "flowers-1") == (document["output_uri"], document["latest"]["run_id"])
    runs = {run["run_id"]: run for run in document["runs"]}
    assert (True, True, 1.0, 2.0) == tuple(runs["flowers-1"][key] for key in ("latest", "pinned", "gpu_hours", "cost"))
    assert 0.95 == runs["flowers-1"]["overview"]["accuracy"]
    assert (None, "Data") == (runs["birds-1"]["overview"], runs["birds-1"]["status"]["reason"])


def test_notes(execute: Any, output: str) -> None:
    """The table ends with how many runs are left out, and what is wrong with latest.json."""
    assert "1 of 4 runs" == execute("--limit", "1")[-1]
    store = storage.open_store(output)
    point_to(store, "gone")
    assert "'gone'" in execute()[-1]
    store.write("latest.json", b"{")
    assert "latest.json is unreadable" in execute()[-1]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"stage": "fine_tuning", "epoch": 3, "epochs": 10}, "running, fine_tuning 3/10"),
        ({"phase": "ingest", "done": 5, "total": None, "unit": "images"}, "running, ingest 5/None images"),
        ({}, "running"),
    ],
)
def test_progress(status: dict[str, Any], expected: str) -> None:
    """An unfinished run has its progress."""
    assert expected == runs_list.state_of(ListedRun(run_id="a", state="running", status=status))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "b"],
        ["a", "--state", "done"],
        ["a", "--gate", "ok"],
        ["a", "--sort", "name"],
        ["a", "--limit", "0"],
        ["a", "--since", "x"],
        ["a", "--stat", "x"],
        ["gs:/b"],
    ],
)
def test_mistakes(arguments: list[str]) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError):
        runs_list.parse(arguments)


def test_no_output(tmp_path: Path) -> None:
    """A folder without runs is exit code 3."""
    with pytest.raises(DataError):
        runs_list.parse([str(tmp_path)]).execute(Progress())
