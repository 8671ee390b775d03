"""The contract of every store, held by a local folder and by a bucket (a real emulator) alike."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from job.storage import LostObject, PreconditionFailed, Store, crc32c, open_store
from job.storage.objects import CHUNK_BYTES

if TYPE_CHECKING:
    from pathlib import Path

ODD_NAMES = [
    "a b.jpg",
    "a%20b.jpg",
    "50%",
    "a#b",
    "what?.jpg",
    "a\nb\t.jpg",
    "a\x7fb",
    "a\\b",
    "a&b=c;d",
    "..a/...",
    "日本/語 \N{GRINNING FACE}.jpg",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{NO-BREAK SPACE}x\N{RIGHT-TO-LEFT OVERRIDE}",
    "<a>{b}[c]|'\"`^~",
    "deep/" * 40 + "x" * 200,
]


@pytest.fixture(params=["local", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of an empty store."""
    if request.param == "local":
        return str(tmp_path / "store")
    return f"gs://{request.getfixturevalue('bucket')}"


@pytest.fixture
def store(root: str) -> Store:
    """Return an empty store."""
    return open_store(root)


def names(store: Store, prefix: str = "", *, recursive: bool = True) -> list[str]:
    """Return what a listing has, in its order."""
    return [info.name for info in store.list(prefix, recursive=recursive)]


def storage_threads() -> list[str]:
    """Return the threads that read objects."""
    return [thread.name for thread in threading.enumerate() if thread.name == "storage"]


def test_what_is_written_is_what_is_read(store: Store) -> None:
    """write, stat, list and read agree about one object, whose checksum is that of its bytes."""
    written = store.write("d/a.txt", b"123456789")

    assert ("d/a.txt", 9, 0xE3069283) == (written.name, written.size, written.crc32c)
    assert written.generation > 0
    assert written == store.stat("d/a.txt")
    assert [written] == list(store.list())
    assert (b"123456789", written) == store.read("d/a.txt")


@pytest.mark.parametrize("size", [0, 1_000, 9_000_000])
def test_a_file_is_written_like_bytes(store: Store, tmp_path: Path, size: int) -> None:
    """A local file ends up in the store byte for byte, also one that is sent in several requests."""
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)

    written = store.write("model", tmp_path / "source")

    assert (size, crc32c(data)) == (written.size, written.crc32c)
    assert (data, written) == store.read("model")


def test_the_time_of_a_write(store: Store) -> None:
    """The store says when an object was written, by its own clock."""
    earliest = time.time()
    store.write("d/a.txt", b"1")

    updated = store.updated("d/a.txt")

    assert updated is not None
    assert earliest - 1 <= updated <= time.time() + 1  # clocks of files tick in steps
    assert store.updated("d/none.txt") is None


def test_nothing_is_there(store: Store) -> None:
    """In an empty store nothing is listed or read, and deleting what is not there is no error."""
    assert [] == names(store)
    assert [] == names(store, "d")
    assert store.stat("d/a") is None
    assert store.read("d/a") is None
    for name in ("x" * 2000, "caf\udce9.jpg"):
        assert store.stat(name) is None
        assert store.read(name) is None
    store.delete("d/a")


def test_a_deleted_object_is_gone(store: Store) -> None:
    """After delete an object is neither listed nor read."""
    store.write("a", b"1")
    store.write("b", b"2")

    store.delete("a")

    assert ["b"] == names(store)
    assert store.read("a") is None


def test_a_generation_is_deleted(root: str, store: Store) -> None:
    """With if_generation_match only that generation is deleted; what does not exist is no error."""
    first = store.write("d/a", b"1")
    if not root.startswith("gs://"):  # the emulator ignores the condition: see test_storage_bucket.py
        with pytest.raises(PreconditionFailed):
            store.delete("d/a", if_generation_match=first.generation + 1)
        assert first == store.stat("d/a")

    store.delete("d/a", if_generation_match=first.generation)
    store.delete("d/a", if_generation_match=first.generation)
    store.delete("elsewhere/a", if_generation_match=first.generation)

    assert [] == names(store)


def test_folders_are_listed_without_their_content(store: Store) -> None:
    """The folders directly below a folder are named, sorted; objects beside them are not."""
    for name in ("runs/b/1", "runs/a/x/y/2", "runs/c", "runs_old/d/3", "runs/a-b/4"):
        store.write(name, b"x")

    assert ["a", "a-b", "b"] == store.folders("runs")
    assert ["runs", "runs_old"] == store.folders("")
    assert [] == store.folders("none")
    assert [] == store.folders("runs/c")


def test_sizes_and_generations(store: Store) -> None:
    """Every object below a folder has its size and its generation, without being read."""
    written = [store.write(f"d/{name}", data) for name, data in (("a", b"12"), ("b/c", b""))]
    store.write("e", b"x")

    assert {info.name: (info.size, info.generation) for info in written} == store.entries("d")
    assert {info.name: info.generation for info in written} == store.generations("d")
    assert ["d/a", "d/b/c", "e"] == list(store.entries(""))
    assert {} == store.entries("none")


def test_an_empty_folder_is_deleted(root: str, store: Store, tmp_path: Path) -> None:
    """What marks a folder is deleted where no object is in it; nothing else is."""
    if root.startswith("gs://"):
        for name in ("runs/a/", "runs/a/model/", "runs/b/"):
            store.write(name, b"")
    else:
        for folder in ("runs/a/model", "runs/b"):
            (tmp_path / "store" / folder).mkdir(parents=True)
    store.write("runs/b/c", b"x")

    for folder in ("runs/a", "runs/b", "none"):
        store.delete_empty_folder(folder)

    marked: list[str] = []
    assert ["runs/b/c"] == [info.name for info in store.list(found_folder=marked.append)]
    assert not [name for name in marked if name.startswith("runs/a")]
    assert ["b"] == store.folders("runs")


def test_a_listing_is_sorted_by_whole_names(store: Store) -> None:
    """Names are ordered by code point ('.' before '/'), and folders are not objects."""
    expected = ["a-b", "a.jpg", "a/x", "a/y/z", "ab", "b", "é"]
    for name in reversed(expected):
        store.write(name, name.encode())

    assert expected == names(store)


def test_a_prefix_is_a_folder(store: Store) -> None:
    """Listing ``d`` gives the contents of the folder d, not siblings whose names begin with d."""
    for name in ("d/cats/1.jpg", "d/2.jpg", "d_old/3.jpg", "d-2/4.jpg", "dd.jpg"):
        store.write(name, b"x")

    assert ["d/2.jpg", "d/cats/1.jpg"] == names(store, "d") == names(store, "d/")
    assert ["d/2.jpg"] == names(store, "d", recursive=False)
    assert ["dd.jpg"] == names(store, recursive=False)


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_a_store_may_be_a_folder_of_another(root: str, store: Store, slashes: str) -> None:
    """A store opened on a folder, with slashes at its end or without, sees and writes just that folder."""
    store.write("d/a", b"1")
    store.write("d_old/b", b"2")

    inner = open_store(f"{root}/d{slashes}")

    assert f"{root}/d" == inner.uri
    assert f"{root}/d/x/c" == inner.uri_of("x/c")
    inner.write("x/c", b"3")
    assert ["a", "x/c"] == names(inner)
    assert ["d/a", "d/x/c", "d_old/b"] == names(store)
    found = inner.read("x/c")
    assert found is not None
    assert "x/c" == found[1].name


def test_odd_names_are_kept(store: Store) -> None:
    """Names with blanks, control characters, escapes and any script come back as they went in, with their bytes."""
    for name in ODD_NAMES:
        store.write(name, name.encode())

    listed = list(store.list())

    assert sorted(ODD_NAMES) == [info.name for info in listed]
    assert {name: name.encode() for name in ODD_NAMES} == {
        listed[index].name: data for index, data in store.read_many(listed)
    }
    for name in ODD_NAMES:
        found = store.read(name)
        assert found is not None
        assert (name.encode(), name) == (found[0], found[1].name)
        store.delete(name)
    assert [] == names(store)


def test_each_write_is_a_later_generation(store: Store) -> None:
    """Generations of a name grow with every write, however fast they follow each other."""
    generations = [store.write("status.json", b"x").generation for _ in range(30)]

    assert all(earlier < later for earlier, later in pairwise(generations))


def test_generation_0_means_that_nothing_may_be_there(store: Store) -> None:
    """With if_generation_match=0 the first write succeeds and the second fails without writing."""
    store.write("_SUCCESS", b"first", if_generation_match=0)

    with pytest.raises(PreconditionFailed):
        store.write("_SUCCESS", b"second", if_generation_match=0)

    found = store.read("_SUCCESS")
    assert found is not None
    assert b"first" == found[0]
    assert ["_SUCCESS"] == names(store)


def test_a_write_over_another_generation_fails(store: Store) -> None:
    """With if_generation_match a write succeeds only over that generation, and never if there is no object."""
    first = store.write("latest.json", b"1")
    second = store.write("latest.json", b"2", if_generation_match=first.generation)

    with pytest.raises(PreconditionFailed):
        store.write("latest.json", b"3", if_generation_match=first.generation)
    with pytest.raises(PreconditionFailed):
        store.write("elsewhere.json", b"3", if_generation_match=first.generation)

    assert (b"2", second) == store.read("latest.json")
    assert ["latest.json"] == names(store)


@pytest.mark.parametrize("generation", [0, None])
def test_one_of_many_writers_wins(root: str, generation: int | None) -> None:
    """Of writers that all saw the same generation exactly one succeeds."""
    before = open_store(root).write("seed", b"0") if generation is None else None
    name, seen = ("seed", before.generation) if before else ("new", 0)
    ready = threading.Barrier(6)

    def write(number: int) -> int:
        store = open_store(root)
        ready.wait()
        try:
            store.write(name, b"%d" % number, if_generation_match=seen)
        except PreconditionFailed:
            return -1
        return number

    with ThreadPoolExecutor(6) as pool:
        winners = [number for number in pool.map(write, range(6)) if number >= 0]

    found = open_store(root).read(name)
    assert found is not None
    assert [int(found[0])] == winners


def test_many_objects_are_read(store: Store) -> None:
    """read_many yields every object once, with its position; more objects than are held at a time."""
    contents = {f"d/{number:03}": os.urandom(number) for number in range(150)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.write, contents, contents.values()))
    objects = list(store.list("d"))

    result = list(store.read_many(objects))

    assert list(range(150)) == sorted(index for index, _ in result)
    assert contents == {objects[index].name: data for index, data in result}
    assert [] == storage_threads()


def test_an_object_that_was_lost_is_told_from_the_others(store: Store) -> None:
    """What was deleted or overwritten since the listing is reported in its place; the rest is read."""
    for name in ("changed", "gone", "kept", "grown"):
        store.write(name, b"before")
    objects = list(store.list())
    store.write("changed", b"after!")
    store.write("grown", b"before and after")
    store.delete("gone")

    result = {objects[index].name: data for index, data in store.read_many(objects)}

    changed, missing = LostObject("changed"), LostObject("missing")
    assert {"changed": changed, "gone": missing, "grown": changed, "kept": b"before"} == result


def test_heads_are_read(store: Store) -> None:
    """read_heads yields the first bytes of what is larger, all of what is not, and what was lost in its place."""
    for name in ("large", "small", "gone", "odd name/é #%?.jpg"):
        store.write(name, name.encode() * (1 if name == "small" else 100))
    objects = list(store.list())
    store.delete("gone")

    result = {objects[index].name: data for index, data in store.read_heads(objects, 12)}

    assert {
        "large": b"largelargela",
        "small": b"small",
        "gone": LostObject("missing"),
        "odd name/é #%?.jpg": ("odd name/é #%?.jpg" * 2).encode()[:12],
    } == result


def test_an_abandoned_reader_leaves_no_threads(store: Store) -> None:
    """Closing read_many in the middle ends its threads, and the store stays usable."""
    for number in range(100):
        store.write(f"{number}", b"x" * 1000)

    reader = store.read_many(list(store.list()))
    next(reader)
    assert storage_threads()
    reader.close()

    assert [] == storage_threads()
    assert store.read("7") is not None


def test_no_objects_are_read_from_no_list(store: Store) -> None:
    """read_many of nothing yields nothing."""
    assert [] == list(store.read_many([]))


@pytest.mark.parametrize("size", [0, 1_000, 2 * CHUNK_BYTES + 5])
def test_a_large_object_is_read_in_chunks(store: Store, size: int) -> None:
    """The chunks are the object's bytes, in order, and none is larger than what fits into the memory."""
    data = os.urandom(size)
    info = store.write("model", data)

    chunks = list(store.read_chunks(info))

    assert data == b"".join(chunks)
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_chunks_of_what_is_gone(store: Store) -> None:
    """An object that was deleted since it was listed is reported as that."""
    info = store.write("model", b"1")
    store.delete("model")

    with pytest.raises(FileNotFoundError):
        list(store.read_chunks(info))
