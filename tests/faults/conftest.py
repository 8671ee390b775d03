"""Runs that are killed, stopped and damaged, and the undisturbed run that all of them must end like."""

from __future__ import annotations

from pathlib import Path

import pytest
from attempts import Attempt
from digests import arrays_sha256
from light_runs import FOLDER
from runs import SMALL, draw_two_classes, only_run

from job import storage

STEPS = ("--feature_extraction.epochs", "2", "--fine_tuning.epochs", "2", "--checkpoint.interval", "0.1")
FLAGS = (*SMALL, *STEPS, "--feature_extraction.batch_size", "4", "--fine_tuning.batch_size", "4")


@pytest.fixture(autouse=True)
def _light(light_processes: None) -> None:
    """Make all runs light."""


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Flags of a small run, but for its output."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_two_classes(folder)
    return (*FLAGS, "--input.uri", str(folder))


@pytest.fixture(scope="session")
def undisturbed(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sha256 over all arrays of the model of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed")
    with Attempt([*flags, "--output.uri", output], PYTHONPATH=str(FOLDER)) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    return arrays_sha256(only_run(output) / "model/model.keras")


@pytest.fixture
def uploaded(flags: tuple[str, ...], bucket: str) -> tuple[str, ...]:
    """The same flags, with the pictures in a bucket."""
    *others, folder = flags
    store = storage.open_store(f"gs://{bucket}/in")
    for path in Path(folder).glob("*/*"):
        store.write(path.relative_to(folder).as_posix(), path)
    return (*others, store.uri)
