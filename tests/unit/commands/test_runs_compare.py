"""The command `finetune runs compare`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from listed_runs import publish

from job import storage
from job.commands import runs_compare
from job.errors import DataError, SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Return the folder of an output with three runs."""
    store = storage.open_store(str(tmp_path / "out"))
    publish(store, "a-1", accuracy=0.9)
    publish(store, "b-1", "--fine_tuning.learning_rate", "3e-5", accuracy=0.8, gpu_hours=1)
    publish(store, "c-1", "--input.uri", "gs://other/cats")
    return store.uri


def compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Execute the command, and return its lines."""
    assert 0 == runs_compare.parse(arguments).execute(Progress())
    return capsys.readouterr().out.splitlines()


def test_differences(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are columns; of settings and data only what differs is a row. An ID is one of the first run's output."""
    lines = compare(capsys, f"{output}/runs/a-1", "b", "c-1")

    rows = [line.split() for line in lines]
    assert ["a-1", "b-1", "c-1"] == rows[0]
    assert ["fine_tuning.learning_rate", "1e-05", "3e-05", "1e-05"] in rows
    assert ["uri", "gs://my-bucket/flowers", "gs://my-bucket/flowers", "gs://other/cats"] in rows
    assert ["gpu_hours", "2", "1", "2"] in rows
    assert not [row for row in rows if row and row[0] == "model.alpha"]
    assert lines[-1].endswith("--all shows them")


def test_all(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --all the equal settings and data are rows, too."""
    rows = [line.split() for line in compare(capsys, "a", "b", "--output.uri", output, "--all")]

    assert ["model.alpha", "1", "1"] in rows
    assert ["labels", "2", "2"] in rows


def test_json(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has the facts of each run."""
    document = json.loads("\n".join(compare(capsys, "a", "b", "--output.uri", output, "--json")))

    assert ["a-1", "b-1"] == [run["run"]["id"] for run in document["runs"]]


def test_unknown(output: str) -> None:
    """A run that does not exist is exit code 3."""
    with pytest.raises(DataError, match="'d'"):
        runs_compare.parse([f"{output}/runs/a-1", "d"]).execute(Progress())


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "--al"]])
def test_mistakes(arguments: list[str]) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError):
        runs_compare.parse(arguments)
