"""A run as a worker other than worker 0 sees it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
from runs import Recorder
from stored_states import IDENTITY, open_checkpoints, state

from job import errors, storage
from job.config.settings import GateSettings, RunSettings
from job.data.manifest import Manifest
from job.observability.progress import Progress
from job.runs.data import Data
from job.runs.followed import FollowedCheckpoints, FollowedRun
from job.runs.job_record import JobRecord
from job.runtime.timing import Timing

if TYPE_CHECKING:
    from pathlib import Path


def followed(folder: Path, identity: dict[str, str] = IDENTITY) -> FollowedCheckpoints:
    """Return the checkpoints of another worker."""
    output = storage.open_store(str(folder))
    return FollowedCheckpoints(output, "c", identity=identity, owner="job", interval=1, takeover=60, timing=Timing())


def listed() -> Data:
    """Return the data of two images, before the pass."""
    columns = {column: np.arange(2, dtype=np.int64) for column in ("size", "crc32c", "generation")}
    columns |= {column: np.zeros(2, np.int32) for column in ("root", "split")}
    label, gzip = np.arange(2, dtype=np.int32), np.zeros(2, bool)
    manifest = Manifest(roots=("gs://b",), labels=("a", "b"), names=["x", "y"], label=label, gzip=gzip, **columns)
    return Data(listed=manifest, quarantined=[])


def test_data(tmp_path: Path) -> None:
    """Worker 0's data are read each time that it has saved them again, and only those of the same run."""
    reader = followed(tmp_path)
    assert reader.newest_data() is None
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_data(listed())
        first = reader.newest_data()
        assert reader.newest_data() is None
        checkpoints.save_data(dataclasses.replace(listed(), usable=np.array([True, False])))
        second = reader.newest_data()
        other = followed(tmp_path, {**IDENTITY, "data": "other"}).newest_data()

    assert first is not None
    assert first.usable is None
    assert second is not None
    assert second.usable is not None
    assert [True, False] == second.usable.tolist()
    assert other is None


def test_damaged_data_are_read_again(tmp_path: Path) -> None:
    """Data that cannot be read are tried again at the next look: they may have been damaged on their way."""
    reader = followed(tmp_path)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_data(listed())
        assert reader.has_new_data()
        [stored] = (tmp_path / "c").glob("*.npz")
        whole = stored.read_bytes()
        stored.write_bytes(whole[:-1])
        assert reader.newest_data() is None
        stored.write_bytes(whole)
        assert reader.newest_data() is not None
        assert not reader.has_new_data()


def test_nothing_is_saved(tmp_path: Path) -> None:
    """A state is not saved."""
    followed(tmp_path).save(lambda: state(1), now=True, wait=True)
    assert not list(tmp_path.iterdir())


def test_waiting_for_worker_0(tmp_path: Path) -> None:
    """Each renewal of worker 0's claim is an event; an error of worker 0 that stays is raised."""
    output, recorder = storage.open_store(str(tmp_path)), Recorder()
    job = JobRecord(output, RunSettings(job_uid="uid-1"))
    run = FollowedRun(output, GateSettings(), job, Progress([recorder]))
    assert run.outcome() is None
    job.pin("r", has_begun=lambda _: False)
    index = "runs/r/checkpoints/index.json"
    for _ in range(2):
        output.write(index, b'{"starts": 1}')
        assert [run.outcome() for _ in range(3)] == [None] * 3
    assert ["workers.following"] * 2 == recorder.names
    with pytest.raises(errors.DataError), job.attempt():
        raise errors.DataError("no images", remedy="look")
    with pytest.raises(errors.DataError, match="no images"):
        run.outcome()
