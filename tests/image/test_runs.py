"""The image at work, as it is run: offline, by any user, under limits, from a bucket; and how it ends."""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from containers import IMAGE, TEMPORARY, Ended, docker, run

from job import storage

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (
    *("--model.image_size", "32", "--feature_extraction.epochs", "1", "--fine_tuning.epochs", "1"),
    *("--export.verify_images", "4", "--report.enabled", "false", "--report.label_errors", "false"),
)
"""Settings of the shortest run with the weights that are in the image."""

WITH_REPORT = ("--report.enabled", "true", "--report.label_errors", "true")

UNKNOWN_USER = ("--read-only", "--user", "1000740000:0")


def published(output: Path) -> Path:
    """Return the one run that was published under a local output."""
    [success] = output.glob("runs/*/_SUCCESS")
    return success.parent


def test_offline_run_by_a_user_that_nobody_knows(volume: str) -> None:
    """No network, no name, no home, a read-only root, no setting but the output, which is a new volume: it works.

    The pictures are the built-in ones, and the weights come out of the image.
    """
    ended = run(
        *("run", "--output.uri", "/output", *SHORT, *WITH_REPORT),
        options=(
            *(*UNKNOWN_USER, *TEMPORARY, "--env", "HOME=/nonexistent", "--network", "none"),
            *("--volume", f"{volume}:/output"),
        ),
    )

    assert 0 == ended.code, ended.err
    loaded = ended.event("weights.loaded")
    assert loaded["source"].startswith("/opt/finetune/weights/")
    assert loaded["verified"] is True
    listing = docker("run", "--rm", "--volume", f"{volume}:/output", "--entrypoint", "find", IMAGE, "/output").stdout
    assert "_SUCCESS" in listing
    assert "report/index.html" in listing


def test_one_cpu_and_no_folder_but_the_cache(pictures: Path, folder: Path, volume: str) -> None:
    """A run with one CPU's quota uses one thread; with a cache volume it needs no /tmp."""
    (folder / "output").mkdir()
    os.chown(folder / "output", 65532, 65532)

    ended = run(
        *("run", "--input.uri", "/input", "--output.uri", "/output", "--cache.dir", "/cache", *SHORT),
        options=(
            *("--read-only", "--cpus", "1", "--volume", f"{volume}:/cache"),
            *("--volume", f"{pictures}:/input:ro", "--volume", f"{folder}/output:/output"),
        ),
    )

    assert 0 == ended.code, ended.err
    assert 1 == ended.event("device.configured")["threads"]
    assert ended.event("cache.opened")["folder"].startswith("/cache/")
    assert (published(folder / "output") / "metrics/metrics.json").is_file()


def test_no_home_at_all() -> None:
    """TensorFlow and Keras start without HOME."""
    ended = run(
        *("-u", "HOME", "finetune", "summary", *SHORT[:2]),
        options=(*UNKNOWN_USER, *TEMPORARY, "--entrypoint", "/usr/bin/env"),
    )

    assert 0 == ended.code, ended.err
    assert "block_16_project" in ended.out


def test_nothing_to_write_to(pictures: Path, volume: str) -> None:
    """Without /tmp and without a cache the run ends before it loads TensorFlow, and names the setting."""
    ended = run(
        *("run", "--input.uri", "/input", "--output.uri", "/output", *SHORT),
        options=(*UNKNOWN_USER, "--volume", f"{pictures}:/input:ro", "--volume", f"{volume}:/output"),
    )

    assert 2 == ended.code, ended.err
    assert ended.seconds < 15
    assert "cache.dir" in ended.events[-1]["message"]


def test_run_from_bucket_to_bucket(bucket: str, pictures: Path) -> None:
    """With the emulator's address in the environment, from gs:// to gs://."""
    for path in pictures.rglob("*.png"):
        storage.open_store(f"gs://{bucket}/in").write(path.relative_to(pictures).as_posix(), path.read_bytes())

    ended = run(
        *("run", "--input.uri", f"gs://{bucket}/in", "--output.uri", f"gs://{bucket}/out", *SHORT),
        options=("--network", "host", "--env", "STORAGE_EMULATOR_HOST"),
    )

    assert 0 == ended.code, ended.err
    latest = storage.open_store(f"gs://{bucket}/out").read("latest.json")
    assert latest is not None
    assert ended.event("run.published")["run_uri"].rpartition("/")[2] in latest[0].decode()


def test_settings_error() -> None:
    """All mistakes at once, exit code 2, in JSON."""
    ended = run("run", "--output.url", "/output", "--fine_tuning.epochs", "-1")

    assert 2 == ended.code
    for text in ("output.uri", "fine_tuning.epochs"):
        assert text in ended.events[-1]["message"]


def test_required_gpu_that_is_not_there(pictures: Path) -> None:
    """Exit code 4, and everything that is missing: a TensorFlow for GPUs, the device, the driver's library."""
    ended = run(
        *("run", "--input.uri", "/input", "--output.uri", "/output", "--device.require_gpu", *SHORT),
        options=("--volume", f"{pictures}:/input:ro"),
    )

    assert 4 == ended.code, ended.err
    assert ended.seconds < 30
    for text in ("CPU alone", "/dev/nvidia*", "libcuda.so.1"):
        assert text in ended.events[-1]["message"]


@pytest.mark.parametrize("mount", ["folder", "volume"])
def test_output_that_cannot_be_written(pictures: Path, folder: Path, volume: str, mount: str) -> None:
    """A folder of root's, or a volume where the image prepared none: exit code 5 before any work, with path and uid."""
    (folder / "trained").mkdir()
    source = {"folder": str(folder / "trained"), "volume": volume}[mount]

    ended = run(
        *("run", "--input.uri", "/input", "--output.uri", "/trained", *SHORT),
        options=("--volume", f"{pictures}:/input:ro", "--volume", f"{source}:/trained"),
    )

    assert 5 == ended.code, ended.err
    assert "device.configured" not in ended.err
    assert "/trained" in ended.events[-1]["message"]
    assert "65532" in ended.events[-1]["message"]


def test_stop(pictures: Path, folder: Path) -> None:
    """``docker stop`` reaches the program, which is process 1: it saves its state and ends with 75, in time."""
    (folder / "output").mkdir()
    (folder / "output").chmod(0o777)
    name = f"finetune-test-{uuid.uuid4().hex[:12]}"
    mounts = ("--volume", f"{pictures}:/input:ro", "--volume", f"{folder}/output:/output")
    settings = ("--input.uri", "/input", "--output.uri", "/output", *SHORT, "--fine_tuning.epochs", "2000")
    docker("run", "--detach", "--name", name, *mounts, IMAGE, "run", *settings)
    try:
        deadline = time.monotonic() + 120
        while '"stage": "fine_tuning", "epoch": 2,' not in docker("logs", name).stderr and time.monotonic() < deadline:
            time.sleep(0.5)
        started = time.monotonic()
        docker("stop", "--time", "30", name)
        seconds = time.monotonic() - started
        [state] = json.loads(docker("inspect", "--format", "[{{json .State}}]", name).stdout)
        said = docker("logs", name)
    finally:
        docker("rm", "--force", name)

    ended = Ended(state["ExitCode"], said.stdout, said.stderr, seconds)
    assert 75 == ended.code, ended.err
    assert ended.event("run.stopped")
    assert seconds < 15


def test_emulator_is_of_no_use_in_the_image() -> None:
    """The emulator is a tool of developers, and not in the image; the command that needs it says so."""
    ended = run("demo")

    assert 2 == ended.code
    assert "emulator is not installed" in ended.err
