"""What the tests of the image share: the image, pictures to mount, and volumes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import containers
import numpy as np
import pytest
from paths import SHARED
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Without a Docker engine, and without ../shared to start one, this tier is not collected.
collect_ignore_glob = [] if SHARED.is_dir() or containers.engine_answers() else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _image(run_folder: Path) -> Iterator[None]:
    with containers.image(run_folder):
        yield


@pytest.fixture
def volume() -> Iterator[str]:
    """Return the name of a new, empty volume."""
    name = f"finetune-test-{uuid.uuid4().hex[:12]}"
    containers.docker("volume", "create", name)
    yield name
    containers.docker("volume", "rm", "--force", name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder that belongs to root and that everyone may read, as a host's folders are."""
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    return tmp_path


@pytest.fixture
def pictures(folder: Path) -> Path:
    """A folder for each of two classes: dark/ and light/, ten pictures each."""
    for label, shade in (("dark", 60), ("light", 190)):
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(10):
            noise = np.random.default_rng((shade, number)).integers(-50, 50, (40, 30, 3))
            Image.fromarray((noise + shade).astype(np.uint8)).save(folder / "pictures" / label / f"{number}.png")
    return folder / "pictures"
