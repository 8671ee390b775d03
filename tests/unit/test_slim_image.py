"""What the image's build cuts off shared libraries, which must open and work afterwards."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
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


def test_library_without_its_symbol_table_works(slim_image: ModuleType, tmp_path: Path) -> None:
    """A real extension module becomes smaller by what is said, imports and works; there is nothing to cut off twice."""
    [installed] = map(Path, obstore.__path__)
    shutil.copytree(installed, tmp_path / "obstore")
    [library] = (tmp_path / "obstore").glob("_obstore*.so")
    before = library.stat().st_size

    removed = slim_image.strip(library)

    assert removed > 0
    assert before - removed == library.stat().st_size
    assert 0 == slim_image.strip(library)
    program = "import obstore.store; print(obstore._obstore.__file__, obstore.store.MemoryStore())"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(library) in done.stdout
    assert "MemoryStore" in done.stdout


def test_what_is_no_library_stays(slim_image: ModuleType, tmp_path: Path) -> None:
    """A linker script, and a link to a library, are left as they are."""
    script = tmp_path / "libc.so"
    script.write_text("GROUP ( libc.so.6 )")
    link = tmp_path / "libnone.so"
    link.symlink_to("nowhere")

    assert 0 == slim_image.strip(script)
    assert 0 == slim_image.strip(link)
    assert "GROUP ( libc.so.6 )" == script.read_text()


def test_removal_says_how_much_it_was(slim_image: ModuleType, tmp_path: Path) -> None:
    """Files and whole folders go; what has gone with a folder before counts nothing."""
    (tmp_path / "tests/tests").mkdir(parents=True)
    (tmp_path / "tests/tests/one.py").write_bytes(bytes(100))
    (tmp_path / "two.a").write_bytes(bytes(10))

    assert 100 == slim_image.remove(tmp_path / "tests")
    assert 0 == slim_image.remove(tmp_path / "tests/tests")
    assert 10 == slim_image.remove(tmp_path / "two.a")
    assert [] == list(tmp_path.iterdir())
