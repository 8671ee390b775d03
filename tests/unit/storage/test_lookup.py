"""Finding many names in a store with few requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from job.storage import ObjectInfo
from job.storage.lookup import LIST_THRESHOLD, stat_by_folder, stat_each

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bucket:
    """A bucket that counts its requests.

    Args:
        names: of its objects, in one folder.
    """

    uri = "gs://bucket"

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.requests: list[str] = []

    def list(self, folder: str, *, recursive: bool) -> Iterator[ObjectInfo]:
        """Yield the objects of the folder."""
        assert not recursive
        self.requests.append(f"list {folder}")
        for number, name in enumerate(sorted(self._names), 1):
            yield ObjectInfo(name, number, 0, 1)

    def stat(self, name: str) -> ObjectInfo | None:
        """Return the object of a name."""
        self.requests.append(f"stat {name}")
        return ObjectInfo(name, 1, 0, 1) if name in self._names else None


def test_neighbours_in_a_listing_are_not_what_is_looked_for() -> None:
    """Where a folder is listed, its other objects are ignored, and a name that is not there is not found."""
    names = [f"d/{number:03}.jpg" for number in range(LIST_THRESHOLD)]
    absent = names[3]
    bucket = Bucket([*(set(names) - {absent}), "d/002a.jpg", "d/000.txt", "d/zzz.jpg"])

    found = {names[index]: info.name for index, info in stat_by_folder(bucket, names)}

    assert {name: name for name in names if name != absent} == found
    assert ["list d"] == bucket.requests


def test_few_names_are_looked_up_one_by_one() -> None:
    """A folder with few of the names is not listed: it may hold a million others."""
    bucket = Bucket(["d/a.jpg", "d/b.jpg"])

    found = dict(stat_by_folder(bucket, ["d/a.jpg", "d/c.jpg"]))

    assert {0: ObjectInfo("d/a.jpg", 1, 0, 1)} == found
    assert {"stat d/a.jpg", "stat d/c.jpg"} == set(bucket.requests)


class CountingStore:
    """Objects by name, and the requests for them."""

    def __init__(self, names: list[str]) -> None:
        self._objects = {name: ObjectInfo(name, 1, 0, 1) for name in names}
        self.listed: list[str] = []
        self.looked_up: list[str] = []

    def list(self, prefix: str, *, recursive: bool) -> Iterator[ObjectInfo]:
        """List a folder, without those below it."""
        assert not recursive
        self.listed.append(prefix)
        yield from (info for name, info in self._objects.items() if name.rpartition("/")[0] == prefix)

    def stat(self, name: str) -> ObjectInfo | None:
        """Look up one name."""
        self.looked_up.append(name)
        return self._objects.get(name)


MANY = [f"many/{number:02}" for number in range(LIST_THRESHOLD)]


def test_folder_with_many_names_is_listed_once() -> None:
    """Many names of a folder take one listing; few of another one take a request each."""
    store = CountingStore([*MANY, "few/1", "many/unnamed", "many/below/1"])
    names = sorted([*MANY, "few/1", "few/2"])

    found = dict(stat_by_folder(store, names))

    assert {names.index(name): name for name in [*MANY, "few/1"]} == {n: info.name for n, info in found.items()}
    assert (["many"], ["few/1", "few/2"]) == (store.listed, sorted(store.looked_up))


def test_few_names_are_looked_up() -> None:
    """Below the threshold nothing is listed."""
    store = CountingStore(MANY)

    assert len(MANY) - 1 == len(list(stat_by_folder(store, MANY[1:])))
    assert ([], MANY[1:]) == (store.listed, sorted(store.looked_up))


@pytest.mark.parametrize("prefix", ["", "top/"])
def test_names_that_a_listing_would_miss(prefix: str) -> None:
    """Names with an empty part are looked up, however many they are: their folder cannot be listed."""
    names = [f"{prefix}/{number:02}" for number in range(LIST_THRESHOLD)]
    store = CountingStore(names)

    assert len(names) == len(list(stat_by_folder(store, names)))
    assert [] == store.listed


def test_names_that_are_missing() -> None:
    """What does not exist is left out, listed or looked up."""
    store = CountingStore(MANY[::2])

    assert list(range(0, LIST_THRESHOLD, 2)) == sorted(index for index, _ in stat_by_folder(store, MANY))
    assert [2, 4] == [index for index, _ in stat_each(store, MANY, [1, 2, 3, 4])]
