"""What the image's build removes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "scripts" / "slim_image.py"


@pytest.fixture(scope="module")
def slim_image() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("slim_image", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_removal_says_how_much_it_was(slim_image: ModuleType, tmp_path: Path) -> None:
    """Files and whole folders go; what has gone with a folder before counts nothing."""
    (tmp_path / "tests/tests").mkdir(parents=True)
    (tmp_path / "tests/tests/one.py").write_bytes(bytes(100))
    (tmp_path / "two.a").write_bytes(bytes(10))

    assert 100 == slim_image.remove(tmp_path / "tests")
    assert 0 == slim_image.remove(tmp_path / "tests/tests")
    assert 10 == slim_image.remove(tmp_path / "two.a")
    assert [] == list(tmp_path.iterdir())
