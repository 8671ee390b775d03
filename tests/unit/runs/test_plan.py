"""What a start would find to do: it is found out without writing anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from opened_runs import checkpoints_of, open_run
from published_runs import publish
from runs import tree

from job import storage
from job.config.load import load_settings
from job.data.manifest import ManifestBuilder
from job.errors import DataError, SettingsError
from job.runs.data import Data
from job.runs.identity import Identity, identify
from job.runs.plan import Plan, plan

if TYPE_CHECKING:
    from pathlib import Path

    from job.config.load import Loaded
    from job.runs.run import Run

JOB = "--run.job_uid=job-uid"
FILES = {"model/labels.txt": b"cats\ndogs\n"}


def identity(loaded: Loaded, data: str) -> Identity:
    """Return the identity of these settings and data."""
    return Identity(recipe=1, data=data, settings=identify(loaded.settings, storage.open_store).settings)


def planned(folder: Path, *flags: str, data: str = "da7a") -> Plan:
    """Return the plan of these flags and data, which changes nothing below the folder."""
    loaded, before = load_settings(flags, {}), tree(folder)
    found = plan(storage.open_store(str(folder)), loaded.settings, identity(loaded, data))
    assert before == tree(folder)
    return found


def begin(folder: Path, *flags: str, released: bool = True) -> Run:
    """Begin a run, and stop; a process that was killed has not released its claim."""
    loaded = load_settings([JOB, *flags], {})
    run = open_run(storage.open_store(str(folder)), loaded, identity(loaded, "da7a"))
    with checkpoints_of(run, loaded.settings) as checkpoints:
        checkpoints.save_data(Data(listed=ManifestBuilder().build(), quarantined=[]))
        index = folder / run.prefix / "checkpoints/index.json"
        claimed = index.read_bytes()
        assert checkpoints.save_if_possible(5.0)
    if not released:
        index.write_bytes(claimed)
    return run


def finish(run: Run) -> None:
    """Publish a run that has begun."""
    for path in run.output.generations(f"{run.prefix}/checkpoints"):
        run.output.delete(path)
    publish(storage.open_store(run.uri), FILES, provenance=False)


def test_new_run(tmp_path: Path) -> None:
    """A run that is not in the output is work, under the id that a start gives it."""
    found = planned(tmp_path, "--input.uri=/in/cats")

    assert (True, "new") == (found.is_work, found.state)
    loaded = load_settings(["--input.uri=/in/cats"], {})
    run = open_run(storage.open_store(str(tmp_path)), loaded, identity(loaded, "da7a"))
    assert (run.id, run.uri) == (found.run_id, found.run_uri)
    assert found == planned(tmp_path, "--input.uri=/in/cats"), "config.json alone is no beginning"


def test_unfinished_run(tmp_path: Path) -> None:
    """A run whose last process has released it is work: a start resumes it."""
    run = begin(tmp_path)

    found = planned(tmp_path)

    assert (True, "unfinished", run.id) == (found.is_work, found.state, found.run_id)
    assert "work: " in found.message


def test_run_under_way(tmp_path: Path) -> None:
    """A run whose claim was renewed a moment ago is no work; its holder is named."""
    begin(tmp_path, released=False)

    found = planned(tmp_path)

    assert (False, "under_way", "job-uid") == (found.is_work, found.state, found.holder)
    assert "job-uid" in found.message


def test_expired_claim(tmp_path: Path) -> None:
    """A claim that nobody has renewed for `checkpoint.takeover` seconds counts as none: its process was killed."""
    run = begin(tmp_path, released=False)
    index = tmp_path / run.prefix / "checkpoints/index.json"
    written = index.stat().st_mtime - 200
    os.utime(index, (written, written))

    assert "unfinished" == planned(tmp_path).state
    assert "under_way" == planned(tmp_path, "--checkpoint.takeover=3600").state


def test_published_run(tmp_path: Path) -> None:
    """A published run is no work; its gate is judged by the present settings, as a start would judge it."""
    finish(begin(tmp_path))

    found = planned(tmp_path)

    assert (False, "published", True) == (found.is_work, found.state, found.gate_passed)
    assert "2026-01-01" in found.message
    below = planned(tmp_path, "--gate.min_accuracy=0.95")
    assert (False, False) == (below.is_work, below.gate_passed)
    assert "below its gate" in below.message
    assert "new" == planned(tmp_path, data="0ther").state
    assert "new" == planned(tmp_path, "--run.seed=8").state


def test_incomplete_publication(tmp_path: Path) -> None:
    """A run that was killed after `_SUCCESS` is work: a start moves latest.json and removes the checkpoints."""
    loaded = load_settings([JOB], {})
    run = open_run(storage.open_store(str(tmp_path)), loaded, identity(loaded, "da7a"))
    with checkpoints_of(run, loaded.settings) as checkpoints:
        checkpoints.commit("0" * 64)
        assert checkpoints.save_if_possible(5.0)
    publish(storage.open_store(run.uri), FILES, provenance=False)

    assert (True, "unfinished") == (planned(tmp_path).is_work, planned(tmp_path).state)


def test_id_that_is_taken(tmp_path: Path) -> None:
    """A run.id of a run on other data is refused, as a start refuses it: it would end with 2 each night."""
    begin(tmp_path, "--run.id=mine")

    with pytest.raises(SettingsError, match=r"run.id 'mine' is taken"):
        planned(tmp_path, "--run.id=mine", data="0ther")
    assert "unfinished" == planned(tmp_path, "--run.id=mine").state


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_unreadable_document(tmp_path: Path, name: str) -> None:
    """A document that ends a start with exit code 3 ends the plan with it, too."""
    run = begin(tmp_path)
    finish(run)
    (tmp_path / run.prefix / name).write_bytes(b"{")

    with pytest.raises(DataError, match=f"{name} is unreadable"):
        planned(tmp_path)


def test_document_has_every_fact(tmp_path: Path) -> None:
    """For programs: whether there is work, and what the plan is based on."""
    found = planned(tmp_path)

    assert {
        "work": True,
        "run_id": found.run_id,
        "run_uri": f"{tmp_path}/runs/{found.run_id}",
        "state": "new",
        "holder": None,
        "published_at": None,
        "gate_passed": None,
    } == found.document()
