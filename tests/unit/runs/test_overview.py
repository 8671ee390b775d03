"""The overview of a run, in _SUCCESS."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
import report_files
from listed_runs import publish

from job import storage
from job.runs import documents, overview

if TYPE_CHECKING:
    from job.storage import Store


@pytest.fixture
def output(tmp_path: object) -> Store:
    """Return an output with a published run."""
    store = storage.open_store(str(tmp_path))
    publish(store, "flowers-1", accuracy=0.93, gpu_hours=1.5, starts=3)
    return store


def read(output: Store, **changed: bytes | None) -> documents.Overview | None:
    """Return the overview, with some files replaced; their names have no folder and no ending."""
    files = {name.removeprefix("runs/flowers-1/"): output.read(name)[0] for name in output.entries("runs/flowers-1")}
    sha256 = hashlib.sha256(files["manifest.json"]).hexdigest()
    for name in files:
        stem = name.rpartition("/")[2].partition(".")[0]
        if stem in changed:
            files[name] = changed[stem]
    return overview.read(files.get, sha256)


def test_what_the_files_record(output: Store) -> None:
    """Data, images by split, kept epoch, accuracy with its interval, starts and GPU time come from the run's files."""
    found = read(output)

    assert found is not None
    validation = report_files.metrics(report_files.TWO)["validation"]
    assert (0.93, tuple(validation["intervals"]["accuracy"])) == (found.accuracy, found.accuracy_interval)
    assert ({"train": 479, "validation": 120, "test": 0}, 2) == (found.images, found.labels)
    assert ("fine_tuning", 9, 3, 5400.0, 5400.0) == (
        found.kept_stage,
        found.kept_epoch,
        found.attempts,
        found.seconds,
        found.gpu_seconds,
    )
    assert ("flowers-1", "gs://my-bucket/flowers") == (found.run_id, found.data_uri)
    assert json.loads(output.read("runs/flowers-1/_SUCCESS")[0])["overview"] == found.document()


@pytest.mark.parametrize("data", [None, b"", b"{", b"[]", b'{"data": {"labels": [1]}, "kept": 3}'])
def test_files_that_are_lost_or_of_another_format(output: Store, data: bytes | None) -> None:
    """Without the other files an overview has what manifest.json has, and null for the rest."""
    found = read(output, config=data, metrics=data, provenance=data)

    assert found is not None
    assert ("flowers-1", 0.93, True) == (found.run_id, found.accuracy, found.gate_passed)
    assert (None, None, {}) == (found.kept_stage, found.attempts, found.images)


@pytest.mark.parametrize("data", [None, b"{}"])
def test_another_manifest(output: Store, data: bytes | None) -> None:
    """A manifest.json that is missing, or is not the one that is named, gives no overview."""
    assert read(output, manifest=data) is None


def test_starts_of_the_job_count(output: Store) -> None:
    """Starts of the Job that ended before they had a run are attempts too."""
    metadata = {"finetune_starts": 1, "finetune_attempts": [{}, {}, {}]}
    made = {"predicate": {"runDetails": {"metadata": metadata}}}

    found = read(output, provenance=json.dumps(made).encode())

    assert found is not None
    assert 3 == found.attempts
