"""Input that is moved, written again or extended while a run is interrupted: it ends in the undisturbed run's bits."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from attempts import Attempt
from digests import arrays_sha256
from fault_proxy import Fault, reply
from runs import draw, only_run, saved

from job import storage

if TYPE_CHECKING:
    from fault_proxy import Proxy, Seen


def finish(*flags: str | Path, output: Path) -> tuple[str, Attempt]:
    """Take a run to its end; return the sha256 of its arrays, and the start."""
    with Attempt([*flags, "--output.uri", output]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    return arrays_sha256(only_run(output) / "model/model.keras"), attempt


def interrupt(*flags: str | Path, output: Path, after: str) -> None:
    """Stop a run after an event; after an epoch, once it has saved a state from which the next start resumes."""
    with Attempt([*flags, "--output.uri", output]) as attempt:
        attempt.wait_for(after)
        while after == "epoch.finished" and not saved(output) and attempt.process.poll() is None:
            time.sleep(0.01)
        attempt.stop(signal.SIGKILL)


@pytest.fixture
def copied(flags: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    """The flags of a run of the same pictures, in a folder that a test may change."""
    shutil.copytree(flags[-1], tmp_path / "in")
    return (*flags[:-1], str(tmp_path / "in"))


@pytest.mark.parametrize("after", ["device.configured", "epoch.finished"])
def test_folder_that_was_moved(copied: tuple[str, ...], undisturbed: str, tmp_path: Path, after: str) -> None:
    """A start that finds the same pictures elsewhere resumes with them; what is published names the new place."""
    run_id = ("--run.id", "r")
    interrupt(*copied, *run_id, output=tmp_path / "out", after=after)
    shutil.move(tmp_path / "in", tmp_path / "elsewhere")

    arrays, attempt = finish(*copied[:-1], tmp_path / "elsewhere", *run_id, output=tmp_path / "out")

    assert undisturbed == arrays
    assert (after == "epoch.finished") == bool(attempt.loaded())
    rows = (only_run(tmp_path / "out") / "data/manifest.jsonl").read_text().splitlines()
    assert {str(tmp_path / "elsewhere")} == {str(Path(json.loads(row)["uri"]).parents[1]) for row in rows}


@pytest.mark.parametrize("owner", [(), ("--run.job_uid", "uid-1")], ids=["process", "job"])
@pytest.mark.parametrize("after", ["device.configured", "epoch.finished"])
def test_objects_written_again(
    uploaded: tuple[str, ...], undisturbed: str, tmp_path: Path, owner: tuple[str, ...], after: str
) -> None:
    """Objects with the same bytes and new generations are the same data, whether or not the start lists them."""
    interrupt(*uploaded, *owner, output=tmp_path / "out", after=after)
    store = storage.open_store(uploaded[-1])
    for info in list(store.list()):
        found = store.read(info.name)
        assert found is not None
        store.write(info.name, found[0])

    arrays, attempt = finish(*uploaded, *owner, output=tmp_path / "out")

    assert undisturbed == arrays
    assert bool(owner) == ("input.listed" not in attempt.names())


def test_picture_that_is_added_before_the_pass_is_over(
    copied: tuple[str, ...], undisturbed: str, tmp_path: Path
) -> None:
    """A Job's next Pod trains on what the first one listed, although that had not read it all."""
    job = ("--run.job_uid", "uid-1")
    interrupt(*copied, *job, output=tmp_path / "out", after="device.configured")
    draw(tmp_path / "in/dark/added.png", shade=90, seed=1000)

    arrays, attempt = finish(*copied, *job, output=tmp_path / "out")

    assert undisturbed == arrays
    assert "input.listed" not in attempt.names()
    record = json.loads((tmp_path / "out/jobs/uid-1.json").read_text())
    killed, finished = record["attempts"]
    assert (None, 0) == (killed["ended_at"], finished["exit_code"])
    metrics = json.loads((only_run(tmp_path / "out") / "metrics/metrics.json").read_text())
    assert 2 == metrics["timing"]["starts"]


def test_pass_in_which_access_is_revoked(uploaded: tuple[str, ...], bucket: str, proxy: Proxy) -> None:
    """A pass over the data ends soon after the claim could not be renewed, not when the last image is read."""
    downloads = itertools.count(1)
    began = threading.Event()

    def fault(request: Seen) -> Fault | None:
        if request.is_download and request.object.startswith("in/"):
            began.set()
            return Fault(delay=0.5 * next(downloads))
        if began.is_set() and request.method == "POST" and request.object.endswith("index.json"):
            return reply(403, b'{"error": {"code": 403, "message": "no storage.objects.delete access"}}')
        return None

    proxy.fault = fault
    with Attempt([*uploaded, "--output.uri", f"gs://{bucket}/out", "--checkpoint.takeover", "4"]) as attempt:
        assert 5 == attempt.wait(), attempt.events[-1]

    assert "lacks storage.objects.delete" in attempt.events[-1]["message"]
    assert "stage.started" not in attempt.names()
    assert next(downloads) <= 33


def test_output_that_cannot_be_overwritten(uploaded: tuple[str, ...], bucket: str, proxy: Proxy) -> None:
    """A role that may create objects and not overwrite them ends the run before its first download."""
    seen: list[str] = []

    def fault(request: Seen) -> Fault | None:
        if request.method != "POST":
            return None
        seen.append(request.object)
        refused = reply(403, b'{"error": {"code": 403, "message": "no storage.objects.delete access"}}')
        return refused if seen.count(request.object) > 1 else None

    proxy.fault = fault
    with Attempt([*uploaded, "--output.uri", f"gs://{bucket}/out"]) as attempt:
        assert 5 == attempt.wait(), attempt.events[-1]

    [failed] = attempt.named("run.failed")
    assert "lacks storage.objects.delete" in failed["message"]
    assert "run.started" not in attempt.names()
    assert not [request for request in proxy.seen if request.is_download and request.object.startswith("in/")]
