"""Finding many names in a store with few requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.storage import ObjectInfo
from job.storage.lookup import LIST_THRESHOLD, stat_by_folder

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
