"""The demo's pictures are the same everywhere, and complete or not there at all."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from job.data import demo_pictures
from job.errors import AccessError
from job.observability.progress import Listener, Phase, Progress

ROOT = Path(__file__).parents[3]


def digests(folder: Path) -> dict[str, str]:
    """Return the path of each file below a folder -> its SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a few pictures."""
    folder = tmp_path_factory.mktemp("drawn") / "pictures"
    demo_pictures.draw(folder, count=24)
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the whole set be small."""
    monkeypatch.setattr(demo_pictures.draw, "__kwdefaults__", {"count": 4, "seed": 7})


def test_classes_are_balanced(drawn: Path) -> None:
    """Half of the pictures are of each class."""
    names = [f"{number:04}.jpg" for number in range(12)]
    assert [f"{label}/{name}" for label in ("flowers", "gears") for name in names] == list(digests(drawn))


def test_same_pictures(drawn: Path, tmp_path: Path) -> None:
    """The same seed draws the same bytes, also where fewer are drawn."""
    demo_pictures.draw(tmp_path / "again", count=6)

    again, before = digests(tmp_path / "again"), digests(drawn)
    assert 6 == len(again)
    assert {name: before[name] for name in again} == again


def test_other_pictures(drawn: Path, tmp_path: Path) -> None:
    """No two pictures are the same, nor any of another seed."""
    demo_pictures.draw(tmp_path / "other", count=6, seed=8)
    assert 30 == len({*digests(drawn).values(), *digests(tmp_path / "other").values()})


def test_pictures_are_photograph_like(drawn: Path) -> None:
    """They are colour JPEGs of many sizes, upright and wide, between 86 and 260 pixels a side."""
    sizes = set()
    for path in drawn.rglob("*.jpg"):
        with Image.open(path) as picture:
            assert ("JPEG", "RGB") == (picture.format, picture.mode)
            sizes.add(picture.size)
    assert len(sizes) > 20
    assert all(86 <= side <= 260 for size in sizes for side in size)
    assert {True, False} == {width > height for width, height in sizes}


@pytest.mark.usefixtures("few")
def test_set_is_drawn_once(tmp_path: Path) -> None:
    """The set is drawn where none is, with its progress, and used again where it is; nothing else is left there."""
    advances: list[tuple[str, int]] = []

    class Phases(Listener):
        def on_advance(self, phase: Phase) -> None:
            advances.append((phase.name, phase.done))

    folder = demo_pictures.pictures(tmp_path / "cache", Progress([Phases()]))
    assert ("draw", 4) == advances[-1]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    assert folder == demo_pictures.pictures(tmp_path / "cache", Progress())
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert [folder] == list((tmp_path / "cache").iterdir())
    assert 4 == len(digests(folder))


KILLED_WHILE_DRAWING = """
import itertools, os, pathlib, signal, sys
from PIL import Image
from job.data import demo_pictures
from job.observability.progress import Progress

save, saved = Image.Image.save, itertools.count(1)

def save_two(*args, **kwargs):
    save(*args, **kwargs)
    if next(saved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Image.Image.save = save_two
demo_pictures.pictures(pathlib.Path(sys.argv[1]), Progress())
"""


@pytest.mark.usefixtures("few")
def test_interrupted_drawing_is_redone(tmp_path: Path) -> None:
    """A process that is killed while it draws leaves nothing that is taken for the set."""
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_DRAWING, tmp_path], cwd=ROOT, check=False)
    assert -signal.SIGKILL == killed.returncode
    assert 2 == len(list(tmp_path.rglob("*.jpg")))

    assert 4 == len(digests(demo_pictures.pictures(tmp_path, Progress())))


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """No place for the pictures is an error that names the place and the setting."""
    (tmp_path / "file").write_text("")

    with pytest.raises(AccessError) as caught:
        demo_pictures.pictures(tmp_path / "file" / "cache", Progress())

    assert str(tmp_path / "file" / "cache") in caught.value.message
    assert "cache.dir" in caught.value.remedy
