"""`finetune runs` as a process, on a bucket and on a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from listed_runs import begin, names, point_to, publish

from job import storage

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


def runs(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "job", "runs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def document(*arguments: str) -> Any:
    """Return the document that the command prints."""
    done = runs(*arguments, "--json")
    assert 0 == done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=["local", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return an output with three published runs and an unfinished one."""
    if request.param == "local":
        store = storage.open_store(str(tmp_path / "out"))
    else:
        store = storage.open_store(f"gs://{request.getfixturevalue('bucket')}/trained")
    for number in range(3):
        publish(store, f"run-{number}", days=30 * number + 1)
    begin(store, "new", stage="fine_tuning", epoch=2)
    point_to(store, "run-0")
    return store


def test_from_the_list_to_a_rollback_and_a_prune(output: Store) -> None:
    """The runs are listed and compared, an earlier one is promoted, and prune deletes what is left over."""
    listed = document("list", output.uri)
    assert ["run-0", "run-1", "run-2"] == [run["run_id"] for run in listed["runs"] if run["state"] == "published"]
    assert ["run-0"] == [run["run_id"] for run in listed["runs"] if run["latest"]]
    compared = document("compare", f"{output.uri}/latest", "run-1")
    assert ["run-0", "run-1"] == [run["run"]["id"] for run in compared["runs"]]

    promoted = runs("promote", "run-1", "--output.uri", output.uri, "--pin", "--why", "rollback")
    assert 0 == promoted.returncode, promoted.stderr
    assert ("run-1", True) == tuple(document("list", output.uri)["latest"][key] for key in ("run_id", "pinned"))

    before = output.entries("runs")
    dry = document("prune", output.uri, "--keep", "1")
    assert before == output.entries("runs")
    assert ["run-2"] == [run["run_id"] for run in dry["runs"]]
    assert dry | {"deleted": True} == document("prune", output.uri, "--keep", "1", "--delete")
    assert ["new", "run-0", "run-1"] == output.folders("runs")
    assert {name: entry for name, entry in before.items() if "run-2" not in name} == output.entries("runs")


def test_a_damaged_run(output: Store) -> None:
    """A damaged run is not promoted, with exit code 3; latest.json stays."""
    output.write("runs/run-1/model/labels.txt", b"cats\nbirds\n")
    before = output.read("latest.json")

    done = runs("promote", f"{output.uri}/runs/run-1", "--why", "x", "--log.format", "console")

    assert 3 == done.returncode
    assert "model/labels.txt" in done.stderr
    assert before == output.read("latest.json")


def test_nothing_there(output: Store) -> None:
    """An output that does not exist is exit code 3 with its URI, a mistake in the call 2."""
    assert 3 == runs("list", f"{output.uri}/nothing").returncode
    assert 3 == runs("show", f"{output.uri}/runs/nothing").returncode
    mistaken = runs("prune", output.uri)
    assert (2, True) == (mistaken.returncode, "--keep" in mistaken.stderr)
    assert [] == document("jobs", output.uri)["jobs"]
    assert "_SUCCESS" in names(output, "run-2")
