"""What a warm start reads of a published run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import latest_runs
import numpy as np
import pytest

from job import storage
from job.config.settings import ModelSettings, OutputSettings, Settings
from job.data.manifest import content_keys
from job.errors import DataError
from job.phases.weights import warm_start
from job.training.state import TrainingState

if TYPE_CHECKING:
    from pathlib import Path


def settings(output: Path) -> Settings:
    """Return settings that start from the latest run of an output."""
    return Settings(output=OutputSettings(uri=str(output)), model=ModelSettings(weights="latest"))


def test_published_model(tmp_path: Path) -> None:
    """Model, labels and training images are those of the run, which the state keeps when latest.json moves."""
    output, state = storage.open_store(str(tmp_path)), TrainingState()
    files = {"model/model.keras": b"zip"}
    latest_runs.publish(output, "old", trained_on=[(10, 1)], held_out=[(20, 2)], labels=("a", "b"), more_files=files)
    with warm_start(settings(tmp_path), storage.open_store, state) as published:
        assert published is not None
        assert (b"zip", ("a", "b")) == (published.path.read_bytes(), published.labels)
        assert content_keys(np.array([10]), np.array([1])).tolist() == published.trained_on.tolist()
    assert not published.path.exists()

    latest_runs.publish(output, "new", more_files=files)
    with warm_start(settings(tmp_path), storage.open_store, state) as resumed:
        assert resumed is not None
        assert f"{tmp_path}/runs/old" == resumed.uri == state.warm_start


@pytest.mark.parametrize("name", ["data/split.jsonl", "data/manifest.jsonl"])
def test_run_of_another_format(tmp_path: Path, name: str) -> None:
    """A run whose lists of images cannot be read is refused, naming it: what it trained on would be unknown."""
    files = {"model/model.keras": b"zip", name: b'{"other": 1}\n'}
    latest_runs.publish(storage.open_store(str(tmp_path)), "old", trained_on=[(10, 1)], more_files=files)

    with (
        pytest.raises(DataError, match=r"runs/old: data/split\.jsonl or data/manifest\.jsonl is of another format"),
        warm_start(settings(tmp_path), storage.open_store, TrainingState()),
    ):
        pass


def test_no_warm_start() -> None:
    """Other weights are no published model."""
    with warm_start(Settings(), storage.open_store, TrainingState()) as published:
        assert published is None
