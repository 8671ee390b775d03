"""What the cache keeps, what it notices, and what the next start finds."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from job import cache, config, errors

if TYPE_CHECKING:
    from pathlib import Path

DATA = {"encoded": {"data": "d"}, "pixels": {"data": "d", "image_size": 4}, "features": {"threads": [2]}}


def open_cache(folder: Path | str, **changes: Any) -> cache.Cache:
    """Open the cache of a run of 40 images of 4 x 4 pixels, with features of length 3."""
    settings = config.CacheSettings(dir=str(folder), max_bytes=changes.pop("max_bytes", None))
    sizes = {"images": 40, "encoded_bytes": 4000, "image_size": 4, "feature_size": 3}
    return cache.Cache(settings, **{"run_id": "run-1", "made_from": DATA, **sizes, **changes})


def fill(kept: cache.Cache) -> None:
    """Put something into every row."""
    for row in reversed(range(40)):
        kept.put_encoded(row, bytes([row]) * (row + 1))
    kept.features[0:40] = np.arange(120, dtype=np.float32).reshape(40, 3)
    assert kept.pixels is not None
    kept.pixels[0:40] = np.arange(40 * 48, dtype=np.int64).reshape(40, 4, 4, 3) % 251


def interrupted(folder: Path, **changes: Any) -> Path:
    """Fill the cache of a run that is stopped then, and return where it lies."""
    with contextlib.suppress(errors.StoppedError), open_cache(folder, **changes) as kept:
        fill(kept)
        raise errors.StoppedError("stopped", remedy="")
    return kept.folder


def test_rows_come_back(tmp_path: Path) -> None:
    """What was written is read, in any order."""
    with open_cache(tmp_path) as kept:
        fill(kept)
        assert bytes([7]) * 8 == kept.encoded(7)
        assert [[117, 118, 119], [0, 1, 2]] == kept.features[np.array([39, 0])].tolist()
        assert kept.pixels is not None
        assert (2 * 48 + 47) % 251 == kept.pixels[np.array([2])][0, 3, 3, 2]


def test_a_run_that_ends_leaves_nothing(tmp_path: Path) -> None:
    """At the end of a run the folder is removed, also a temporary one of a run that fails."""
    with open_cache(tmp_path) as kept:
        fill(kept)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="x"), open_cache("") as kept:
        raise ValueError("x")
    assert not kept.folder.exists()


def test_the_next_start_goes_on_with_it(tmp_path: Path) -> None:
    """What a stopped run has kept is there at its next start; what a killed one wrote in part is not."""
    folder = interrupted(tmp_path)
    (folder / "model").mkdir()
    with (folder / "encoded.index").open("ab") as index:
        index.write(bytes(cache.RECORD.itemsize) + b"part of a record")

    with open_cache(tmp_path) as kept:
        assert kept.has(slice(0, 32))
        assert kept.has(slice(32, 40))
        assert [bytes([row]) * (row + 1) for row in range(40)] == [kept.encoded(row) for row in range(40)]
        assert not (folder / "model").exists()
        kept.put_encoded(3, b"new")
        assert (b"new", b"\x04" * 5) == (kept.encoded(3), kept.encoded(4))


@pytest.mark.parametrize(
    ("part", "encoded", "whole"),
    [("features", True, False), ("pixels", True, False), ("encoded", False, True)],
)
def test_made_from_something_else(tmp_path: Path, part: str, encoded: bool, whole: bool) -> None:
    """A part that was made from something else is not used; the others are."""
    interrupted(tmp_path)
    with open_cache(tmp_path, made_from={**DATA, part: {"other": 1}}) as kept:
        assert encoded == (kept.encoded(5) is not None)
        assert whole == kept.has(slice(0, 32))


def test_made_from_what_nobody_knows(tmp_path: Path) -> None:
    """Where it cannot be told what the cache was made from, it is not used."""
    (interrupted(tmp_path) / "made_from.json").write_bytes(b"{")
    with open_cache(tmp_path) as kept:
        assert kept.encoded(5) is None


@pytest.mark.parametrize("name", ["features", "pixels", "encoded", "features.crc32c", "pixels.crc32c"])
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    """A bit that flipped, in any of the files, is not taken for data; the rows beside it are still good."""
    path = interrupted(tmp_path) / name
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    with open_cache(tmp_path) as kept:
        damaged = [row for row in range(40) if kept.encoded(row) is None or not kept.has(slice(row, row + 1))]
        assert 1 == len(damaged)


def test_damaged_features_end_the_run(tmp_path: Path) -> None:
    """Features that are damaged while they are used end the run with 20: the next start makes them again."""
    with open_cache(tmp_path) as kept:
        fill(kept)
        with (kept.folder / "features").open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(errors.UnavailableError, match="1 of 2 rows") as caught:
            _ = kept.features[np.array([0, 1])]
    assert 20 == caught.value.exit_code


def test_two_processes(tmp_path: Path) -> None:
    """Where another process works in the folder, a new one is made beside it."""
    with open_cache(tmp_path) as first:
        fill(first)
        with open_cache(tmp_path) as second:
            assert first.folder != second.folder
            assert second.encoded(5) is None
        assert not second.folder.exists()
        assert first.encoded(5) is not None


def test_pixels_give_way(tmp_path: Path) -> None:
    """Pixels are not kept where the budget does not allow it, and what was kept of them is removed."""
    folder = interrupted(tmp_path)
    with open_cache(tmp_path, max_bytes=4000 + 40 * 12 + 40 * 48 - 1) as kept:
        assert kept.pixels is None
        assert kept.has(slice(0, 40))
        assert not (folder / "pixels").exists()


def test_too_little_room(tmp_path: Path) -> None:
    """Where not even the encoded images fit, the run ends with 3, and the message has the bytes needed."""
    with pytest.raises(errors.DataError, match="take 4,480 bytes, and the cache may hold 4,479") as caught:
        open_cache(tmp_path, max_bytes=4479)
    assert "cache.max_bytes to at least 4,480" in caught.value.remedy
    with pytest.raises(errors.DataError, match=r"take [\d,]+ bytes"):
        open_cache(tmp_path, max_bytes=2**62, encoded_bytes=2**60)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made ends the run with 5, naming it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.AccessError, match=r"cannot write to cache.dir .*file/cache"):
        open_cache(tmp_path / "file" / "cache")


def test_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up all the same ends the run with 3, one that fails with 20."""
    codes = iter([errno.ENOSPC, errno.EIO, errno.EIO])

    def fail(*_: object) -> int:
        code = next(codes)
        raise OSError(code, os.strerror(code))

    with open_cache(tmp_path) as kept:
        monkeypatch.setattr(os, "pwrite", fail)
        with pytest.raises(errors.DataError, match="bytes free"):
            kept.put_encoded(0, b"x")
        with pytest.raises(errors.UnavailableError, match="Input/output error"):
            kept.put_encoded(0, b"x")
        with pytest.raises(errors.UnavailableError, match="features: Input/output error"):
            kept.features[0:1] = np.zeros((1, 3))
