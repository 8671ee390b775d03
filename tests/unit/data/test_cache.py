"""What the cache keeps, what it notices, and what the next start finds."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filled_caches import DATA, FEATURE_BYTES, INDEX_BYTES, PIXEL_BYTES, fill, interrupted, open_cache

from job import errors
from job.data.cache import VERSIONS
from job.data.cache_files import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        index.write(bytes(RECORD.itemsize) + b"part of a record")

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
    """A cache whose origin is unknown is not used."""
    (interrupted(tmp_path) / "made_from.json").write_bytes(b"{")
    with open_cache(tmp_path) as kept:
        assert kept.encoded(5) is None


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a disk that has less room than it says."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def open_files(folder: Path) -> set[str]:
    """Return which files of a folder, or once of it, this process has open."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            links.append(link.readlink())
    return {link.name.removesuffix(" (deleted)") for link in links if link.is_relative_to(folder)}


def test_two_processes(tmp_path: Path) -> None:
    """If another process uses the folder, a new one is created beside it."""
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
    budget = 4000 + INDEX_BYTES + FEATURE_BYTES + PIXEL_BYTES
    with open_cache(tmp_path, max_bytes=budget - 1) as kept:
        assert kept.pixels is None
        assert kept.has(slice(0, 40))
        assert not (folder / "pixels").exists()
    assert "pixels are decoded again each epoch: the budget has 2,079 bytes left for them" == kept.facts["note"]
    assert kept.facts["free_bytes"] > budget


def test_all_files_are_counted(tmp_path: Path) -> None:
    """A full cache takes what it is allowed to, index and checksums included, and not a byte more."""
    budget = 820 + INDEX_BYTES + FEATURE_BYTES + PIXEL_BYTES
    with open_cache(tmp_path, max_bytes=budget, encoded_bytes=820) as kept:
        fill(kept)
        files = [path for path in kept.folder.iterdir() if path.name not in {"lock", "made_from.json"}]
        assert budget == sum(path.stat().st_size for path in files)


def test_features_that_are_not_wanted_any_more(tmp_path: Path) -> None:
    """A start that needs no features has their room for the images."""
    folder = interrupted(tmp_path)
    with open_cache(tmp_path, feature_size=0, max_bytes=4000 + INDEX_BYTES) as kept:
        assert [0, 0] == [path.stat().st_size for path in folder.glob("features*")]
        assert kept.encoded(5) is not None
        assert kept.has(slice(0, 40))


def test_more_bytes_than_were_listed(tmp_path: Path) -> None:
    """Images that unpack to more than was listed may fill the budget; beyond it the run ends with 3 and the bytes."""
    budget = 100 + INDEX_BYTES + FEATURE_BYTES + PIXEL_BYTES
    with open_cache(tmp_path, encoded_bytes=100, max_bytes=budget) as kept:
        kept.put_encoded(0, bytes(60))
        kept.put_encoded(0, bytes(60))
        kept.put_encoded(1, bytes(40))
        with pytest.raises(errors.DataError, match=rf"{budget + 7:,} bytes so far .* may hold {budget:,}") as caught:
            kept.put_encoded(2, bytes(7))
        assert (60, None) == (len(kept.encoded(0) or b""), kept.encoded(2))
    assert "unpacked" in caught.value.message
    assert f"well above {budget + 7:,}" in caught.value.remedy
    with open_cache(tmp_path, encoded_bytes=100, max_bytes=budget - 1) as kept:
        assert kept.pixels is None
        kept.put_encoded(0, bytes(100 + PIXEL_BYTES - 1))
        with pytest.raises(errors.DataError, match="so far"):
            kept.put_encoded(1, bytes(1))


def test_room_for_pixels_beside_unpacked_bytes(tmp_path: Path) -> None:
    """Where an earlier start found that images take more than was listed, pixels have what these leave."""
    budget = 150 + INDEX_BYTES + FEATURE_BYTES + PIXEL_BYTES
    for excess, is_kept in ((0, True), (1, False)):
        sizes = {"encoded_bytes": 100, "max_bytes": budget - excess}
        with contextlib.suppress(errors.StoppedError), open_cache(tmp_path, **sizes) as kept:
            assert is_kept == (kept.pixels is not None)
            kept.put_encoded(0, bytes(150))
            raise errors.StoppedError("stopped", remedy="")


def test_half_of_the_free_disk_by_default(tmp_path: Path) -> None:
    """Without cache.max_bytes the cache takes half of what is free, since other things need the disk as well."""
    with open_cache(tmp_path) as kept:
        pass
    assert kept.facts["free_bytes"] // 2 == kept.facts["budget_bytes"]


def test_limit_of_the_volume(tmp_path: Path) -> None:
    """The disk is the node's: what the Pod may take of it is free, and no more."""
    with open_cache(tmp_path, volume_limit_bytes=10**6) as kept:
        pass
    assert (10**6, 500_000) == (kept.facts["free_bytes"], kept.facts["budget_bytes"])


def test_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system writes less than asked, the rest is written behind it."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:3], offset))
    with open_cache(tmp_path) as kept:
        kept.put_encoded(7, b"encoded")
        kept.features[0:2] = np.arange(6, dtype=np.float32).reshape(2, 3)
        assert b"encoded" == kept.encoded(7)
        assert [[0, 1, 2], [3, 4, 5]] == kept.features[np.arange(2)].tolist()


def test_too_little_room(tmp_path: Path) -> None:
    """Where not even the encoded images fit, the run ends with 3, and the message has the bytes needed."""
    needed = 4000 + INDEX_BYTES + FEATURE_BYTES
    with pytest.raises(
        errors.DataError, match=f"take {needed:,} bytes, and the cache may hold {needed - 1:,}"
    ) as caught:
        open_cache(tmp_path, max_bytes=needed - 1)
    assert f"cache.max_bytes to at least {needed:,}" in caught.value.remedy
    with pytest.raises(errors.DataError, match=r"take [\d,]+ bytes"):
        open_cache(tmp_path, max_bytes=2**62, encoded_bytes=2**60)


def test_less_room_than_the_disk_said(tmp_path: Path) -> None:
    """A file without space is closed: without pixels the run continues, without the others it ends with 3."""
    with file_size_limit(2**16), open_cache(tmp_path, image_size=64) as kept:
        assert kept.pixels is None
        assert {"features", "features.crc32c", "encoded", "encoded.damaged", "encoded.index", "lock"} == open_files(
            kept.folder
        )
    assert kept.facts["note"].startswith("pixels are decoded again each epoch: the disk does not take them: ")

    for parts in ({"feature_size": 2**10}, {"encoded_bytes": 2**17}):
        with file_size_limit(2**16), pytest.raises(errors.DataError, match=r"take [\d,]+ bytes"):
            open_cache(tmp_path, **parts)
        assert not open_files(tmp_path)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that cannot be made ends the run with 5, naming it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.AccessError, match=r"cannot write to cache.dir .*file/cache"):
        open_cache(tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, 3), (errno.EDQUOT, 3), (errno.EACCES, 5), (errno.EROFS, 5), (errno.EIO, 20), (errno.ESTALE, 20)],
)
@pytest.mark.parametrize("call", ["mkdir", "open", "statvfs", "posix_fallocate"])
def test_disk_that_fails_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, expected: int
) -> None:
    """A cache that cannot be opened ends the run with 3 for want of space, 5 for permission, and else with 20."""

    def fail(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(errors.FinetuneError) as caught:
            open_cache(tmp_path / "cache")
    assert expected == caught.value.exit_code


def test_views_count_as_needed(tmp_path: Path) -> None:
    """Features of augmented images are stored before the pixels; their setting is named where they do not fit."""
    made_from = DATA | {"views": {VERSIONS: 3}}
    needed = 4 * FEATURE_BYTES + 4000 + INDEX_BYTES
    with open_cache(tmp_path / "a", made_from=made_from, max_bytes=needed) as kept:
        assert kept.views is not None
        assert (3 * FEATURE_BYTES, None) == (kept.facts["view_bytes"], kept.pixels)
        kept.views[119:120] = np.ones((1, 3), np.float32)
        kept.features[0:40] = np.ones((40, 3), np.float32)
        kept.clear_features(8)
        assert not kept.views.has(slice(119, 120))
        assert [8, 8] == [
            json.loads((kept.folder / "made_from.json").read_text())[name]["part"] for name in ("features", "views")
        ]
    with pytest.raises(errors.DataError) as raised:
        open_cache(tmp_path / "b", made_from=made_from, max_bytes=needed - 1)
    assert "feature_extraction.views" in raised.value.remedy


@pytest.mark.parametrize("change", [{VERSIONS: 3, "seed": 8}, {VERSIONS: 4, "seed": 7}])
def test_views_of_other_settings_are_not_reused(tmp_path: Path, change: dict[str, int]) -> None:
    """Features of images that were augmented in another way are not used; those of the same settings are."""
    for views, found in (({VERSIONS: 3, "seed": 7}, False), ({VERSIONS: 3, "seed": 7}, True), (change, False)):
        with contextlib.suppress(errors.StoppedError), open_cache(tmp_path, made_from=DATA | {"views": views}) as kept:
            assert kept.views is not None
            assert found == kept.views.has(slice(0, 1))
            kept.views[0:1] = np.ones((1, 3), np.float32)
            raise errors.StoppedError("stopped", remedy="")


FROZEN = {**DATA, "frozen": {"from_layer": "b", "shape": [2, 3]}}
FROZEN_BYTES = 40 * (2 * 3 * 4 + 4)


def test_outputs_of_the_frozen_part_are_kept(tmp_path: Path) -> None:
    """They are part of the cache, found again by a later start, and discarded where they depend on something else."""
    values = np.arange(240, dtype=np.float32).reshape(40, 2, 3)
    with contextlib.suppress(errors.StoppedError), open_cache(tmp_path, made_from=FROZEN) as kept:
        fill(kept)
        assert not kept.has(slice(0, 40))
        kept.frozen[0:40] = values
        assert FROZEN_BYTES == kept.facts["frozen_bytes"]
        raise errors.StoppedError("stopped", remedy="")
    with contextlib.suppress(errors.StoppedError), open_cache(tmp_path, made_from=FROZEN) as kept:
        assert kept.has(slice(0, 40))
        assert np.array_equal(values, kept.frozen[np.arange(40)])
        raise errors.StoppedError("stopped", remedy="")
    other = {**DATA, "frozen": {"from_layer": "a", "shape": [2, 3]}}
    with open_cache(tmp_path, made_from=other) as kept:
        assert not kept.frozen.has(slice(0, 1))
        assert kept.features.has(slice(0, 40))


def test_outputs_of_the_frozen_part_must_fit(tmp_path: Path) -> None:
    """The budget knows them: a cache without room for them is refused, with the bytes that it needs."""
    needed = 4000 + INDEX_BYTES + FEATURE_BYTES + FROZEN_BYTES

    with pytest.raises(errors.DataError, match=f"{needed:,} bytes"):
        open_cache(tmp_path, made_from=FROZEN, max_bytes=needed - 1)
    with open_cache(tmp_path, made_from=FROZEN, max_bytes=needed) as kept:
        assert kept.pixels is None


def test_clearing_the_frozen_part_alone(tmp_path: Path) -> None:
    """A start in stage 2 has no features, but may have outputs of the frozen part."""
    with open_cache(tmp_path, made_from=FROZEN, feature_size=0) as kept:
        kept.clear_features(16)
        assert 16 == json.loads((kept.folder / "made_from.json").read_text())["frozen"]["part"]


def test_clearing_features_clears_the_frozen_part(tmp_path: Path) -> None:
    """Both are computed by the same pass, in batches of the same size."""
    with open_cache(tmp_path, made_from=FROZEN) as kept:
        kept.frozen[0:40] = np.zeros((40, 2, 3), np.float32)
        kept.clear_features(16)
        assert not kept.frozen.has(slice(0, 1))
        assert 16 == json.loads((kept.folder / "made_from.json").read_text())["frozen"]["part"]
