"""The run of an output that reported last."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from job import storage
from job.watch.newest_run import find_run, newest_run

if TYPE_CHECKING:
    from pathlib import Path


def report(folder: Path, age: int) -> None:
    """Write the status.json of a run, some seconds ago."""
    folder.mkdir(parents=True)
    (folder / "status.json").write_text("{}")
    os.utime(folder / "status.json", (1e9 - age, 1e9 - age))


def test_folder_on_this_machine(tmp_path: Path) -> None:
    """A folder is a run, or has runs: then it is the one that reported last."""
    for age, name in enumerate("bac"):
        report(tmp_path / "runs" / name, age)

    assert tmp_path / "runs/b" == find_run(str(tmp_path))
    assert tmp_path / "runs/a" == find_run(str(tmp_path / "runs/a"))
    assert find_run(str(tmp_path / "runs")) is None
    assert find_run("gs://bucket/trained") is None


def test_output_in_a_store(tmp_path: Path) -> None:
    """Runs that have reported nothing do not count."""
    output = storage.open_store(str(tmp_path))
    assert newest_run(output) is None
    for age, name in enumerate("ba"):
        report(tmp_path / "runs" / name, age)
    (tmp_path / "runs/c").mkdir()

    assert "b" == newest_run(output)
