"""Input that hangs in the middle of an epoch: no step that was taken is lost, and the process does not hang with it."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from attempts import Attempt
from digests import arrays_sha256
from held import Hold, cache_flags, damage, sides
from runs import only_run

from job.training import stages

if TYPE_CHECKING:
    from pathlib import Path

    from fault_proxy import Proxy

STEPS = 4
"""Steps of the epoch that are taken before the input hangs."""


@pytest.mark.alone
@pytest.mark.parametrize("ending", ["stall", "SIGTERM"])
def test_input_that_hangs(
    uploaded: tuple[str, ...], undisturbed: str, proxy: Proxy, tmp_path: Path, ending: str
) -> None:
    """The stall watch, or what cuts off after a signal, saves the last step; the next start takes the very next."""
    output, cache = tmp_path / "out", tmp_path / "cache"
    run = [*uploaded, "--output.uri", str(output), *cache_flags(uploaded, cache), "--checkpoint.interval", "1000"]
    run += ["--run.job_uid", "job"]
    stall_minutes = "0.4" if ending == "stall" else "30"
    with Attempt([*run, "--device.stall_minutes", stall_minutes], counting=True) as attempt:
        assert attempt.wait_for("stage.started")  # all images are here, and stage 1 needs none of them
        train = sides(str(output))["train"]
        first_of_batch = stages.order(7, "fine_tuning", 0, len(train))[4 * STEPS]
        damage(cache, train[first_of_batch])
        proxy.fault = hold = Hold(lambda request: request.is_bulk)
        assert hold.reached.wait(60)
        if ending == "stall":
            attempt.wait()
        else:
            assert attempt.wait_for("step.taken", STEPS, stage="fine_tuning")  # the input is read two batches ahead
            assert attempt.stop(signal.SIGTERM) < 8
        hold.released.set()
    with Attempt(run) as following:
        loaded = following.wait_for("checkpoint.loaded")
        assert 0 == following.wait(), following.events[-1]

    assert loaded
    assert ("fine_tuning", 0, STEPS) == (loaded["stage"], loaded["epoch"], loaded["step"])
    assert undisturbed == arrays_sha256(only_run(output) / "model/model.keras")
    last = attempt.events[-1]
    ends = [item["exit_code"] for item in json.loads((output / "jobs/job.json").read_text())["attempts"]]
    assert [attempt.process.returncode, 0] == ends
    if ending == "SIGTERM":
        assert (75, "run.stopped") == (attempt.process.returncode, last["event"])
        return
    assert (20, "run.failed") == (attempt.process.returncode, last["event"])
    assert "no progress for 0.4 minutes (device.stall_minutes); the state is saved" in last["message"]
    stacks = {name: event["stack"] for event in attempt.named("run.stalled") for name in event["threads"]}
    assert "in prefetch" in stacks["MainThread"]
