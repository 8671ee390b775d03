"""The data of a run, as they are saved, and as a later start finds them elsewhere."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from listed_inputs import put, read_from

from job.data.quarantine import Quarantined
from job.runs.data import Data

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [f"{label}/{number}.jpg" for label in ("cats", "dogs") for number in range(3)]


def listing(folder: Path) -> Data:
    """Return the data of a folder, as listed."""
    listed, quarantined = read_from(folder)
    return Data(listed=listed, quarantined=quarantined)


def checked(folder: Path, *, unusable: int) -> Data:
    """Return the data of a folder after a pass that quarantined one row."""
    data = listing(folder)
    usable = np.ones(len(data.listed), bool)
    usable[unusable] = False
    uri, label = data.listed.uri(unusable), data.listed.labels[data.listed.label[unusable]]
    image = Quarantined(uri, label, 5, "corrupt", "it is cut off")
    hashes = np.arange(len(usable), dtype=np.uint64)
    return Data(listed=data.listed, usable=usable, hashes=hashes, quarantined=[*data.quarantined, image])


@pytest.mark.parametrize("is_over", [False, True])
def test_pack(tmp_path: Path, is_over: bool) -> None:
    """Data come back from their arrays, whether or not the pass over them is over."""
    put(tmp_path, NAMES)
    data = checked(tmp_path, unusable=4) if is_over else listing(tmp_path)

    unpacked = Data.unpack(data.pack())

    assert data.listed.digest() == unpacked.listed.digest()
    assert data.quarantined == unpacked.quarantined
    assert np.array_equal(data.usable, unpacked.usable) if is_over else unpacked.usable is None
    assert np.array_equal(data.hashes, unpacked.hashes) if is_over else unpacked.hashes is None


def test_relocated(tmp_path: Path) -> None:
    """Data found elsewhere have the new roots, generations and URIs; which images are usable stays as it was."""
    put(tmp_path / "old", NAMES)
    put(tmp_path / "old", ["cats/empty.jpg"], b"")
    data = checked(tmp_path / "old", unusable=4)
    shutil.copytree(tmp_path / "old", tmp_path / "new")

    moved = data.relocated(listing(tmp_path / "new"))

    assert (str(tmp_path / "new"),) == moved.listed.roots
    assert moved.usable is data.usable
    assert moved.hashes is data.hashes
    expected = [("empty", f"{tmp_path}/new/cats/empty.jpg"), ("corrupt", f"{tmp_path}/new/dogs/1.jpg")]
    assert expected == [(image.reason, image.uri) for image in moved.quarantined]


def test_unusable_files_that_were_removed(tmp_path: Path) -> None:
    """Before the pass is over the new listing counts: what was unusable may be gone, or written again."""
    put(tmp_path, NAMES)
    put(tmp_path, ["cats/empty.jpg"], b"")
    data = listing(tmp_path)
    (tmp_path / "cats/empty.jpg").unlink()

    found = data.relocated(listing(tmp_path))

    assert (1, []) == (len(data.quarantined), found.quarantined)
    assert data.listed.digest() == found.listed.digest()


def test_not_relocated(tmp_path: Path) -> None:
    """Data found where they were are the same object: there is nothing to save."""
    put(tmp_path, NAMES)
    data = checked(tmp_path, unusable=0)

    assert data is data.relocated(listing(tmp_path))
