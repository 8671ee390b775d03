"""Images without labels: found under files, folders and buckets, and read in order."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image as Pictures

from job import storage
from job.data import image_files
from job.data.image_files import AHEAD, BATCH, LOOKUPS, Listed
from job.errors import AccessError, SettingsError
from job.storage import LostObject, ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def encoded(size: int = 10) -> bytes:
    """Return an image."""
    file = io.BytesIO()
    Pictures.new("RGB", (size, size), "red").save(file, "PNG")
    return file.getvalue()


def put(folder: Path, *names: str, data: bytes | None = None) -> None:
    """Write images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded() if data is None else data)


def found(*paths: object, ignored: list[str] | None = None) -> list[str]:
    """Return the URIs of what is found."""
    ignore = (lambda _: None) if ignored is None else ignored.append
    return [file.uri for file in image_files.find(map(str, paths), storage.open_store, ignore)]


def test_order(tmp_path: Path) -> None:
    """The order is that of the paths and, in a folder, by name; a path that is given twice is found twice."""
    put(tmp_path, "b/2.png", "b/10.png", "b/sub/1.png", "a.png")

    expected = [*("a.png", "b/10.png", "b/2.png", "b/sub/1.png"), "a.png"]
    paths = [tmp_path / "a.png", tmp_path / "b", tmp_path / "a.png"]
    assert [str(tmp_path / name) for name in expected] == found(*paths)


def test_many_paths(tmp_path: Path) -> None:
    """Paths are looked up in groups, and taken as they are needed: a list may be longer than the memory."""
    put(tmp_path, "a.png")
    paths = itertools.repeat(str(tmp_path / "a.png"))

    files = image_files.find(paths, storage.open_store)

    assert 3 * LOOKUPS == len(list(itertools.islice(files, 3 * LOOKUPS)))


def test_files_of_other_types(tmp_path: Path) -> None:
    """In a folder they are ignored, a name without a suffix is none of them; a file that is given is always read."""
    put(tmp_path, "1.png", "notes.txt", ".DS_Store", "0a1b2c", "README.md")
    ignored: list[str] = []

    assert [str(tmp_path / "0a1b2c"), str(tmp_path / "1.png")] == found(tmp_path, ignored=ignored)
    assert 3 == len(ignored)
    assert [str(tmp_path / "notes.txt")] == found(tmp_path / "notes.txt")


def test_relative_and_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be relative, lead upwards, and have blanks."""
    put(tmp_path, "a b.png", "sub/1.png")
    monkeypatch.chdir(tmp_path / "sub")

    assert [str(tmp_path / "a b.png"), str(tmp_path / "sub/1.png")] == found("../a b.png", ".")


def test_bucket(bucket: str) -> None:
    """An object, a prefix and a whole bucket are paths; a prefix is a folder."""
    store = storage.open_store(f"gs://{bucket}")
    for name in ("new/1.png", "new/2.png", "new_old/3.png"):
        store.write(name, encoded())
    expected = [f"gs://{bucket}/{name}" for name in ("new/2.png", "new/1.png", "new/2.png")]

    assert expected == found(f"gs://{bucket}/new/2.png", f"gs://{bucket}/new")
    assert 3 == len(found(f"gs://{bucket}"))


def test_no_path() -> None:
    """A mistyped URI is answered with the one that was meant."""
    with pytest.raises(SettingsError, match="gs://bucket/a"):
        found("gs:/bucket/a")


def read(*paths: object, max_pixels: int = 10_000) -> list[image_files.Image]:
    """Return the images under paths."""
    files = image_files.find(map(str, paths), storage.open_store)
    return [image for batch in image_files.read(files, max_pixels=max_pixels) for image in batch]


def test_what_cannot_be_used(tmp_path: Path) -> None:
    """Each image that cannot be used has its reason, in its place."""
    put(tmp_path, "1.png")
    put(tmp_path, "2.png", data=b"")
    put(tmp_path, "3.png", data=b"<html>")
    put(tmp_path, "4.png", data=encoded(200))
    put(tmp_path, "5.png", data=encoded()[:20])

    images = read(tmp_path, tmp_path / "gone", tmp_path / "1.png")

    reasons = [None, "empty", "not_an_image", "too_large", "corrupt", "missing", None]
    assert reasons == [image.reason for image in images]
    assert [image.reason is None for image in images] == [image.data is not None for image in images]
    assert str(tmp_path / "gone") == images[5].uri


def test_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read in batches of a limited number and size, in order; a large one is alone."""
    put(tmp_path, *(f"{number:03}.png" for number in range(BATCH + 3)))
    files = list(image_files.find([str(tmp_path)], storage.open_store))
    (tmp_path / "001.png").write_bytes(encoded() * 50)
    big = list(image_files.find([str(tmp_path)], storage.open_store))

    assert [BATCH, 3] == [len(batch) for batch in image_files.read(files, max_pixels=1000)]
    monkeypatch.setattr(image_files, "BATCH_BYTES", 40 * len(encoded()))
    batches = list(image_files.read(big, max_pixels=1000))
    assert [1, 1, BATCH, 1] == [len(batch) for batch in batches]
    assert [file.uri for file in big] == [image.uri for batch in batches for image in batch]


class Counting:
    """A store whose objects are images without end, which counts what was read."""

    uri = "/counted"

    def __init__(self) -> None:
        self.read = 0

    def read_many(self, objects: Sequence[ObjectInfo]) -> Iterator[tuple[int, bytes | LostObject]]:
        """Yield the objects in reverse order, the last one lost."""
        self.read += len(objects)
        yield len(objects) - 1, LostObject("changed")
        for index in reversed(range(len(objects) - 1)):
            yield index, encoded()

    def files(self) -> Iterator[Listed]:
        """Yield files without end."""
        for number in itertools.count():
            yield Listed(f"/counted/{number}", self, ObjectInfo(str(number), 100, 0, 1))


def test_a_few_are_read_ahead() -> None:
    """While batches are consumed, only the next ones are read; the order of arrival changes nothing."""
    store = Counting()
    batches = image_files.read(store.files(), max_pixels=1000)

    first, *_ = (next(batches) for _ in range(4))
    batches.close()

    assert [f"/counted/{number}" for number in range(BATCH)] == [image.uri for image in first]
    assert [*[None] * (BATCH - 1), "changed"] == [image.reason for image in first]
    assert store.read <= (4 + AHEAD) * BATCH


def test_a_store_that_fails() -> None:
    """Its error ends the reading."""

    class Denying(Counting):
        def read_many(self, objects: Any) -> Any:
            raise AccessError(f"no permission for {len(objects)}", remedy="ask")

    with pytest.raises(AccessError):
        next(image_files.read(Denying().files(), max_pixels=1000))
