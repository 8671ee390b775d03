"""Disks that fill up, vanish or lie, and caches that outlive a run: it ends in the same bits, or says what is wrong."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import prerequisites
import pytest
from attempts import Attempt
from digests import arrays_sha256
from runs import only_run

from job.data.cache_files import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def moved(flags: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    """The flags of a run of the same pictures, in a folder that a test may change."""
    shutil.copytree(flags[-1], tmp_path / "in")
    return (*flags[:-1], str(tmp_path / "in"), "--cache.dir", str(tmp_path / "cache"))


@contextlib.contextmanager
def small_disk(folder: Path, size: int, image: Path | None = None) -> Iterator[Path]:
    """Mount an empty disk of some bytes: memory, or ext4 in a file."""
    if reason := prerequisites.reason_to_skip("root, with loop devices"):
        pytest.skip(reason)
    folder.mkdir()
    if image is None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    else:
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["/sbin/mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def finish(*arguments: str | Path, output: Path) -> tuple[str, Attempt]:
    """Take a run to its end; return the sha256 of its arrays."""
    with Attempt([*arguments, "--output.uri", output]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    return arrays_sha256(only_run(output) / "model/model.keras"), attempt


def found(attempt: Attempt, name: str) -> dict[str, object]:
    """Return the one event of a name."""
    [event] = [event for event in attempt.events if event["message"] == name]
    return event


def test_nothing_is_read_again(moved: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """A Job's next Pod uses the cache volume: the input is neither listed nor read again."""
    moved = (*moved, "--run.job_uid", "uid-1")
    with Attempt([*moved, "--output.uri", tmp_path / "out"]) as attempt:
        attempt.wait_for("epoch.finished")
        attempt.stop(signal.SIGKILL)
    shutil.rmtree(tmp_path / "in")

    arrays, attempt = finish(*moved, output=tmp_path / "out")

    assert undisturbed == arrays
    assert (32, 32) == (found(attempt, "cache.reused")["images"], found(attempt, "cache.opened")["encoded_found"])
    assert not list((tmp_path / "cache").iterdir())


def test_damaged_cache(moved: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """Damaged rows on the cache volume are recomputed, and downloaded again if necessary."""
    with Attempt([*moved, "--output.uri", tmp_path / "out"]) as attempt:
        attempt.wait_for("epoch.finished")
        attempt.stop(signal.SIGKILL)
    [folder] = (tmp_path / "cache").iterdir()
    for name in ("features", "pixels", "encoded"):
        data = bytearray((folder / name).read_bytes())
        for at in range(0, len(data), len(data) // 5):
            data[at] ^= 255
        (folder / name).write_bytes(data)

    arrays, attempt = finish(*moved, output=tmp_path / "out")

    assert undisturbed == arrays
    assert "cache.reused" not in attempt.names()


def test_cache_that_vanishes(moved: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """A cache folder that is removed during the run does not end it."""
    with Attempt([*moved, "--output.uri", tmp_path / "out"]) as attempt:
        attempt.wait_for("stage.started")
        shutil.rmtree(tmp_path / "cache")
        assert 0 == attempt.wait(), attempt.events[-1]
    assert undisturbed == arrays_sha256(only_run(tmp_path / "out") / "model/model.keras")


def test_read_only_cache(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A cache folder that cannot be written ends the run with 5, naming it and the reason."""
    with small_disk(tmp_path / "disk", 2**20) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with Attempt([*flags, "--output.uri", tmp_path / "out", "--cache.dir", disk / "cache"]) as attempt:
            assert 5 == attempt.wait()
    assert f"cannot write to cache.dir '{disk / 'cache'}'" in attempt.events[-1]["message"]
    assert "Read-only file system" in attempt.events[-1]["message"]


def test_small_disk(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """Where the disk has no room for the pixels they are decoded again each epoch; for less, exit 3 with the bytes."""
    with small_disk(tmp_path / "disk", 2**17) as disk:
        with Attempt([*flags, "--output.uri", tmp_path / "out", "--cache.dir", disk]) as attempt:
            assert 3 == attempt.wait()
        event = attempt.events[-1]
    assert "bytes free" in event["message"]
    assert "cache.max_bytes to at least" in event["remedy"]

    with small_disk(tmp_path / "room", 2**23) as disk:
        arrays, attempt = finish(*flags, "--cache.dir", disk, output=tmp_path / "out")
    assert undisturbed == arrays
    assert found(attempt, "cache.opened")["pixels_kept"] is False


def test_space_that_was_not_enough_is_free_again(tmp_path: Path) -> None:
    """If a disk has less space than it reported, the files that were written until then are removed."""
    with small_disk(tmp_path / "disk", 2**23, tmp_path / "image") as disk:
        before = os.statvfs(disk).f_bfree
        with pytest.raises(OSError, match="No space left"):
            Rows(disk / "pixels", np.uint8, 100, (2**17,))
        assert before == os.statvfs(disk).f_bfree


def test_full_disk_at_the_export(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """A disk too full for the exported model ends the run with 20, nothing is published, and the next start is."""
    with small_disk(tmp_path / "disk", 2**20) as disk:
        limits = ("--cache.dir", disk, "--cache.max_bytes", str(2**20))
        with Attempt([*flags, *limits, "--output.uri", tmp_path / "out"]) as attempt:
            assert 20 == attempt.wait(), attempt.events[-1]
    assert "the model cannot be written to" in attempt.events[-1]["message"]
    run = only_run(tmp_path / "out")
    assert not [name for name in ("_SUCCESS", "manifest.json", "model") if (run / name).exists()]

    assert undisturbed == finish(*flags, output=tmp_path / "out")[0]


def test_clock_that_jumps(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """A clock set a day ahead and then a year back, during the run, changes no bit, and no time comes out negative."""
    if reason := prerequisites.reason_to_skip("libfaketime"):
        pytest.skip(reason)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob(prerequisites.FAKETIME))),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",  # seconds between two looks at the file
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # a clock that is set does not move that one
    }
    with Attempt([*flags, "--output.uri", tmp_path / "out"], **environment) as attempt:
        for jump, moment in (("+1d", "run.started"), ("-365d", "epoch.finished"), ("+1h", "model.chosen")):
            attempt.wait_for(moment)
            clock.write_text(jump)
        assert 0 == attempt.wait(), attempt.events[-1]

    assert 1 < len({event["time"][:4] for event in attempt.events}), "the clock did jump"
    folder = only_run(tmp_path / "out")
    assert undisturbed == arrays_sha256(folder / "model/model.keras")
    rows = csv.DictReader((folder / "metrics/history.csv").read_text().splitlines())
    seconds = [float(row["seconds"]) for row in rows]
    seconds += json.loads((folder / "metrics/metrics.json").read_text())["timing"].values()
    assert 0 <= min(seconds)
    assert max(seconds) < 600
