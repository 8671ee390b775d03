"""A run killed anywhere, any number of times, ends in the same bits as an undisturbed one."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING

from attempts import Attempt
from held import Hold
from runs import arrays_sha256, only_run

from job import storage

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Proxy

MOMENTS = (
    "input.listed",
    "run.started",
    "device.configured",
    "cache.opened",
    "stage.started",
    "epoch.finished",
    "stage.finished",
    "epoch.finished",
    "model.chosen",
    "model.verified",
)
"""Events in the order of a run; the process is killed a random while after each."""


def finish(flags: tuple[str, ...], output: Path) -> tuple[str, list[str]]:
    """Take a run to its end; return the sha256 of its arrays, and the names of the last start's events."""
    with Attempt([*flags, "--output.uri", output]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
        return arrays_sha256(only_run(output) / "model/model.keras"), attempt.names()


def test_sigkill(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """Killed ten times, at moments chosen by seed from its first line to its last, a run loses nothing."""
    delays = random.Random(7)  # noqa: S311 (no secret)
    for moment in MOMENTS:
        with Attempt([*flags, "--output.uri", tmp_path]) as attempt:
            attempt.wait_for(moment)
            time.sleep(delays.uniform(0, 0.5))
            attempt.stop(signal.SIGKILL)

    arrays, names = finish(flags, tmp_path)

    assert undisturbed == arrays
    assert "checkpoint.loaded" in names or "run.succeeded" in names
    assert not list((only_run(tmp_path) / "checkpoints").rglob("*.npz"))


def test_sigkill_after_success(uploaded: tuple[str, ...], bucket: str, proxy: Proxy) -> None:
    """Killed between _SUCCESS and latest.json, a run is completed by its next start: latest.json, no checkpoints."""
    output = f"gs://{bucket}/out"
    store = storage.open_store(output)
    run = [*uploaded, "--output.uri", output]
    proxy.fault = hold = Hold(lambda request: "latest.json" in request.path)
    with Attempt(run) as attempt:
        assert hold.reached.wait(240)
        attempt.stop(signal.SIGKILL)
        hold.released.set()
    before = {found.name for found in store.list("")}
    with Attempt(run) as following:
        assert 0 == following.wait(), following.events[-1]
    after = {found.name for found in store.list("")}
    latest = store.read("latest.json")
    assert latest is not None
    [success] = [name for name in before if name.endswith("/_SUCCESS")]
    run_id = success.split("/")[1]

    assert run_id == json.loads(latest[0])["run_id"]
    assert {"latest.json"} == after - before
    assert before - after
    assert all(name.startswith(f"runs/{run_id}/checkpoints/") for name in before - after)
    assert "device.configured" not in following.names()


def test_damaged_checkpoint(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """Where the newest checkpoint is damaged, the one before it is used, and the log says so."""
    with Attempt([*flags, "--output.uri", tmp_path]) as attempt:
        attempt.wait_for("epoch.finished", 3)
        attempt.stop(signal.SIGTERM)
    objects = sorted((only_run(tmp_path) / "checkpoints").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
    newest = [path for path in objects if path.name != "data.npz"][-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)

    arrays, names = finish(flags, tmp_path)

    assert undisturbed == arrays
    assert "checkpoint.damaged" in names


def test_superseded(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """A Pod that was cut off while the Job's next one went on finds itself superseded, and stops with 75."""
    job = ("--output.uri", str(tmp_path), "--run.job_uid", "uid-1")
    with Attempt([*flags, *job]) as first:
        first.wait_for("stage.started", 2)
        first.process.send_signal(signal.SIGSTOP)
        with Attempt([*flags, *job]) as second:
            second.wait_for("checkpoint.loaded")
            second.wait_for("stage.started")
            first.process.send_signal(signal.SIGCONT)
            assert 75 == first.wait(), first.events[-1]
            assert 0 == second.wait(), second.events[-1]

    assert "another process has taken this run over" in first.events[-1]["message"]
    assert undisturbed == arrays_sha256(only_run(tmp_path) / "model/model.keras")


def test_other_owner_waits_and_takes_over(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """Another owner waits for a claim to fall silent, then takes the run over and ends it the same."""
    output = ("--output.uri", str(tmp_path), "--checkpoint.takeover", "5")
    with Attempt([*flags, *output, "--run.job_uid", "uid-1"]) as first:
        first.wait_for("stage.started", 2)
        first.stop(signal.SIGKILL)
    with Attempt([*flags, *output, "--run.job_uid", "uid-2"]) as second:
        waiting = second.wait_for("claim.waiting")
        assert waiting
        assert 0 == second.wait(), second.events[-1]

    assert "uid-1" == waiting["holder"]
    assert undisturbed == arrays_sha256(only_run(tmp_path) / "model/model.keras")


def test_other_owner_gives_way(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Another owner that sees the claim renewed ends with exit 2, naming the holder."""
    output = ("--output.uri", str(tmp_path), "--checkpoint.takeover", "8", "--fine_tuning.epochs", "500")
    with Attempt([*flags, *output, "--run.job_uid", "uid-1"]) as first:
        first.wait_for("stage.started", 2)
        with Attempt([*flags, *output, "--run.job_uid", "uid-2"]) as second:
            assert 2 == second.wait()
    assert "uid-1 works on this run" in second.events[-1]["message"]
