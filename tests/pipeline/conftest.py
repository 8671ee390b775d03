"""What the tests of whole runs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import light_runs
import pytest
from runs import WITH_REPORT, draw, run

from job.config.settings import Settings
from job.runtime import device

# TensorFlow takes its threads once in a process: here, before any test has used it.
device.prepare()
device.configure(Settings())

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def whole() -> None:
    """Leave the runs of a test as they are: its subject is the model or its verification."""


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the runs of a test light, but for their SavedModel, which is read; one of a process is verified, too."""
    monkeypatch.setenv(light_runs.VERIFIED, "1")
    monkeypatch.setenv("PYTHONPATH", str(light_runs.FOLDER))
    with light_runs.here(light_runs.SHALLOW, light_runs.UNVERIFIED):
        yield


@pytest.fixture(autouse=True)
def _light(request: pytest.FixtureRequest) -> None:
    """Make the runs of all other tests light."""
    if not {"whole", "answering"} & {*request.fixturenames}:
        request.getfixturevalue("light")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of two classes: dark/ and light/, ten pictures each."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(10):
        draw(folder / "dark" / f"{n}.jpg", shade=60, seed=n)
        draw(folder / "light" / f"{n}.png", shade=190, seed=100 + n)
    return folder


@pytest.fixture(scope="session")
def published(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one run on `pictures`, with a verified model of few blocks."""
    output = tmp_path_factory.mktemp("published")
    with light_runs.here(light_runs.SHALLOW):
        run("--input.uri", pictures, "--output.uri", output, *WITH_REPORT)
    return output
