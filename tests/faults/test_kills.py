"""A run killed anywhere, any number of times, ends in the same bits as an undisturbed one."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
from attempts import Attempt, Position, position
from digests import arrays_sha256
from held import Hold
from runs import only_run, saved

from job import storage

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Proxy

MOMENTS: tuple[tuple[str, float], ...] = (
    ("input.listed", 0.5),
    ("run.started", 0.5),
    ("device.configured", 0.5),
    ("cache.opened", 0.5),
    ("stage.started", 0.5),
    ("epoch.finished", 0.1),
    ("stage.finished", 0.5),
    ("stage.first_step", 0.1),
    ("epoch.finished", 0.1),
    ("stage.first_step", 0.3),
    ("model.chosen", 0.5),
    ("model.verified", 0.5),
)
"""Events in the order of a run; the process is killed a random while after each, in seconds at most."""

EPOCHS = {"feature_extraction": 0, "fine_tuning": 2}
"""How many were finished before each stage, by conftest.STEPS."""


def finish(flags: tuple[str, ...], output: Path) -> tuple[str, Attempt]:
    """Take a run to its end; return the sha256 of its arrays, and the last start."""
    with Attempt([*flags, "--output.uri", output], counting=True) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    return arrays_sha256(only_run(output) / "model/model.keras"), attempt


@pytest.mark.long
def test_sigkill(flags: tuple[str, ...], undisturbed: str, tmp_path: Path) -> None:
    """Killed at moments chosen by seed from its first line to its last, a run loses nothing and resumes each time.

    Steps are done twice only where they were taken after the newest checkpoint that lies on the disk.
    """
    delays = random.Random(7)  # noqa: S311 (no secret)
    starts, newest = [], []
    for moment, longest in MOMENTS:
        with Attempt([*flags, "--output.uri", tmp_path], counting=True) as attempt:
            attempt.wait_for(moment)
            time.sleep(delays.uniform(0, longest))
            attempt.stop(signal.SIGKILL)
        starts.append(attempt)
        newest.append(next((position(entry["state"]) for entry in saved(tmp_path)), None))
    arrays, last = finish(flags, tmp_path)
    starts.append(last)
    codes = [attempt.process.returncode for attempt in starts[:-1]]
    [steps] = {event["steps"] for attempt in starts for event in attempt.events if "steps" in event}

    def count(where: Position | None) -> int:
        stage, epoch, step = where or ("feature_extraction", 0, 0)
        return (EPOCHS[stage] + epoch) * steps + step

    done = again = 0
    for before, attempt in zip([None, *newest], starts, strict=True):
        if "run.started" not in attempt.names():
            continue  # it did not come so far, or found the run published
        assert before == attempt.loaded()
        first = count(before)
        assert [*range(first + 1, first + 1 + len(attempt.steps()))] == [*map(count, attempt.steps())]
        again += max(0, done - first)
        done = first + len(attempt.steps())

    assert undisturbed == arrays
    # The last kills may come too late, where the machine is quick.
    assert {-signal.SIGKILL} == set(codes[:-2])
    assert {-signal.SIGKILL, 0} >= set(codes)
    assert sum(attempt.loaded() is not None for attempt in starts) >= 4
    assert 4 * steps == done
    assert 4 * steps + again == sum(len(attempt.steps()) for attempt in starts)
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
    """If the newest checkpoint is damaged, the run resumes from the one before it; the log names both."""
    stop = (signal.SIGTERM, ("fine_tuning", 1, 3))
    with Attempt([*flags, "--output.uri", tmp_path], signal_at=stop) as attempt:
        assert 75 == attempt.wait(), attempt.events[-1]
    newest, before = saved(tmp_path)
    name = newest["objects"]["weights"]["name"]
    damaged = tmp_path / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)

    arrays, last = finish(flags, tmp_path)
    told = [event for event in last.events if event["message"] in ("checkpoint.damaged", "checkpoint.loaded")]

    assert stop[1] == position(newest["state"]) != position(before["state"])
    assert ["checkpoint.damaged", "checkpoint.loaded"] == [event["message"] for event in told]
    assert (name, newest["saved_at"]) == (told[0]["object"], told[0]["saved_at"])
    assert (position(before["state"]), before["saved_at"]) == (position(told[1]), told[1]["saved_at"])
    assert undisturbed == arrays
