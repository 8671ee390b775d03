"""Images of many stores are read within one bound on threads, open requests and open stores."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from listed_inputs import put, read_from

from job import storage
from job.data.sources import Sources
from job.storage import parallel
from job.storage.local import LocalStore
from job.storage.parallel import THREADS

if TYPE_CHECKING:
    from pathlib import Path

    from job.data.manifest import Manifest

ROOTS = 40


class Counted:
    """Opens the stores of a disk, and counts what they are asked for at a time."""

    def __init__(self) -> None:
        self.lock, self.opened, self.open, self.peak = threading.Lock(), list[str](), 0, 0

    def __call__(self, root: str) -> storage.Store:
        """Open a store."""
        self.opened.append(root)
        return cast("storage.Store", CountedStore(root, self))


class CountedStore(LocalStore):
    """A folder whose files take a moment."""

    def __init__(self, root: str, counted: Counted) -> None:
        super().__init__(root)
        self._counted = counted

    def read_listed(self, info: storage.ObjectInfo, closed: threading.Event) -> bytes | storage.LostObject:
        """Read a file while the others wait."""
        counted = self._counted
        with counted.lock:
            counted.open += 1
            counted.peak = max(counted.peak, counted.open)
        time.sleep(0.002)
        found = super().read_listed(info, closed)
        with counted.lock:
            counted.open -= 1
        return found


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """List images, of which each root has every fortieth."""
    put(tmp_path / "in", [f"{label}/{number}.jpg" for label in "ab" for number in range(200)])
    listed = read_from(tmp_path / "in", layout="classes")[0]
    roots = tuple(str(tmp_path / f"root{number}") for number in range(ROOTS))
    for root in roots:
        (tmp_path / root).symlink_to(tmp_path / "in")
    return dataclasses.replace(listed, roots=roots, root=(np.arange(len(listed)) % ROOTS).astype(np.uint16))


def test_many_stores_share_one_bound(manifest: Manifest) -> None:
    """Forty stores have as many threads and open requests as one, and each is opened once."""
    counted, most = Counted(), 0
    sources, found = Sources(manifest, counted), {}
    for row, data in sources.read(np.arange(len(manifest))):
        found[row] = data
        most = max(most, [thread.name for thread in threading.enumerate()].count("storage"))
    again = list(sources.read(np.arange(7)))

    assert {row: name.encode() for row, name in enumerate(manifest.names)} == found
    assert {row: found[row] for row in range(7)} == dict(again)
    assert sorted(manifest.roots) == sorted(counted.opened)
    assert 1 < counted.peak <= THREADS
    assert THREADS == most
    assert "storage" not in [thread.name for thread in threading.enumerate()]


def test_rows_are_requested_in_their_order(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few ranges are incomplete at a time: the images of all stores are taken in the order of the rows."""
    monkeypatch.setattr(parallel, "THREADS", 1)
    arrived = [row for row, _ in Sources(manifest, storage.open_store).read(np.arange(len(manifest)))]

    assert list(range(len(manifest))) == arrived


def test_a_lost_image_of_one_store(manifest: Manifest, tmp_path: Path) -> None:
    """What was deleted from one of many stores is reported at its row."""
    (tmp_path / "in" / manifest.names[5]).unlink()

    found = dict(Sources(manifest, storage.open_store).read(np.array([3, 5, 9])))

    assert {row: manifest.names[row].encode() for row in (3, 9)} | {5: storage.LostObject("missing")} == found


def test_nothing_is_read_of_no_rows(manifest: Manifest) -> None:
    """No store is opened for no image."""
    counted = Counted()
    assert [] == list(Sources(manifest, counted).read(np.zeros(0, np.intp)))
    assert [] == counted.opened
