"""The files of a cache: rows come back, damage is noticed, and a failing disk is reported."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filled_caches import fill, interrupted, open_cache

from job import errors
from job.data.cache_files import RECORD

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_come_back(tmp_path: Path) -> None:
    """What was written is read, in any order."""
    with open_cache(tmp_path) as kept:
        fill(kept)
        assert bytes([7]) * 8 == kept.encoded(7)
        assert [[117, 118, 119], [0, 1, 2]] == kept.features[np.array([39, 0])].tolist()
        assert kept.pixels is not None
        assert (2 * 48 + 47) % 251 == kept.pixels[np.array([2])][0, 3, 3, 2]


@pytest.mark.parametrize("name", ["features", "pixels", "encoded", "features.crc32c", "pixels.crc32c", "encoded.index"])
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    """A flipped bit in any of the files is detected; the neighbouring rows stay valid."""
    path = interrupted(tmp_path) / name
    data = bytearray(path.read_bytes())
    data[8] ^= 1
    path.write_bytes(data)
    with open_cache(tmp_path) as kept:
        damaged = [row for row in range(40) if kept.encoded(row) is None or not kept.has(slice(row, row + 1))]
        assert 1 == len(damaged)


@pytest.mark.parametrize("position", range(0, 32, 3))
def test_damaged_record(tmp_path: Path, position: int) -> None:
    """Wherever a record of the index is damaged, that image is read again, and no row has another's bytes."""
    path = interrupted(tmp_path) / "encoded.index"
    data = bytearray(path.read_bytes())
    data[5 * RECORD.itemsize + position] ^= 0x81  # the sixth record is that of row 34
    path.write_bytes(data)
    with open_cache(tmp_path) as kept:
        assert [34] == np.flatnonzero(~kept.has_encoded(np.arange(40))).tolist()
        kept.put_encoded(34, b"again")
        expected = [bytes([row]) * (row + 1) if row != 34 else b"again" for row in range(40)]
        assert expected == [kept.encoded(row) for row in range(40)]


def test_damaged_bytes_are_replaced(tmp_path: Path) -> None:
    """Bytes that are written again take the place of the damaged ones: the file does not grow."""
    path = interrupted(tmp_path) / "encoded"
    path.write_bytes(bytes(4000))
    with open_cache(tmp_path, encoded_bytes=820) as kept:
        assert kept.encoded(7) is None
        fill(kept)
        assert bytes([7]) * 8 == kept.encoded(7)
        assert bytes(4000 - 820) == path.read_bytes()[820:]


def test_disk_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that cannot be read count as damaged and are recomputed; unreadable features in use end the run with 20."""

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    interrupted(tmp_path)
    with contextlib.suppress(errors.StoppedError), open_cache(tmp_path) as kept:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", fail)
            assert kept.encoded(5) is None
            assert not kept.has(slice(0, 32))
            with pytest.raises(errors.UnavailableError, match="2 of 2 rows"):
                _ = kept.features[np.array([0, 1])]
        raise errors.StoppedError("stopped", remedy="")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        kept = open_cache(tmp_path)
    with kept:
        assert not kept.has_encoded(np.arange(40)).any()
        assert not kept.has(slice(0, 1))
        kept.put_encoded(5, b"again")
        assert b"again" == kept.encoded(5)


def test_damaged_features_end_the_run(tmp_path: Path) -> None:
    """Features that are damaged while they are used end the run with 20: the next start makes them again."""
    with open_cache(tmp_path) as kept:
        fill(kept)
        with (kept.folder / "features").open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(errors.UnavailableError, match="1 of 2 rows") as caught:
            _ = kept.features[np.array([0, 1])]
    assert 20 == caught.value.exit_code


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


def test_marks_outlive_a_start(tmp_path: Path) -> None:
    """Rows that an interrupted start marked as damaged are marked for the next one, and no others are."""
    with contextlib.suppress(errors.StoppedError), open_cache(tmp_path) as kept:
        kept.mark_damaged(7)
        raise errors.StoppedError("stopped", remedy="")

    with open_cache(tmp_path) as kept:
        kept.mark_damaged(9)
        assert [7, 9] == np.flatnonzero(kept.damaged(np.arange(40))).tolist()
