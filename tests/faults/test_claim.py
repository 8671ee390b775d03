"""Real processes that work on one run in one bucket: one at a time publishes it, and nothing is mixed."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import prerequisites
import pytest
from attempts import Attempt
from digests import arrays_sha256
from held import Hold

from job import storage

if TYPE_CHECKING:
    from pathlib import Path

    from fault_proxy import Proxy

    from job.storage import Store

"""Starts a program as the first process of a container is started."""

SUPERSEDED = "another process has taken this run over"


@pytest.fixture
def output(bucket: str) -> Store:
    """Return an empty output in a bucket."""
    return storage.open_store(f"gs://{bucket}/out")


def check_published(output: Store, arrays: str, folder: Path) -> None:
    """Assert that the one run is whole, its model is the expected one, and its status says so."""
    [prefix] = {name.rpartition("/")[0] for info in output.list() if (name := info.name).endswith("/_SUCCESS")}
    files = {info.name.removeprefix(f"{prefix}/"): output.read(info.name)[0] for info in output.list(prefix)}
    manifest = json.loads(files["manifest.json"])
    published = {name: data for name, data in files.items() if name in manifest["files"]}

    assert {"_SUCCESS", "manifest.json", "status.json"} == {
        name for name in files.keys() - published.keys() if not name.startswith("checkpoints/")
    }
    assert hashlib.sha256(files["manifest.json"]).hexdigest() == json.loads(files["_SUCCESS"])["manifest_sha256"]
    assert {name: file["sha256"] for name, file in manifest["files"].items()} == {
        name: hashlib.sha256(data).hexdigest() for name, data in published.items()
    }
    assert "succeeded" == json.loads(files["status.json"])["state"]
    (folder / "model.keras").write_bytes(files["model/model.keras"])
    assert arrays == arrays_sha256(folder / "model.keras")


def test_held_up_in_an_epoch(uploaded: tuple[str, ...], output: Store, undisturbed: str, tmp_path: Path) -> None:
    """A Pod that was suspended while the Job's next one took over is superseded, and stops with 75."""
    run = [*uploaded, "--output.uri", output.uri, "--run.job_uid", "uid-1"]
    with Attempt(run) as first:
        assert first.wait_for("stage.first_step", 2)
        first.process.send_signal(signal.SIGSTOP)
        with Attempt(run) as second:
            assert second.wait_for("stage.started")
            first.process.send_signal(signal.SIGCONT)
            assert 75 == first.wait(), first.events[-1]
            assert 0 == second.wait(), second.events[-1]

    assert "checkpoint.loaded" in second.names()
    assert SUPERSEDED in first.events[-1]["message"]
    check_published(output, undisturbed, tmp_path)


def test_held_up_while_publishing(
    uploaded: tuple[str, ...], output: Store, undisturbed: str, proxy: Proxy, tmp_path: Path
) -> None:
    """A Pod that is held up in the middle of an upload, until the Job's next one has published, changes nothing."""
    run = [*uploaded, "--output.uri", output.uri, "--run.job_uid", "uid-1"]
    proxy.fault = hold = Hold(lambda request: request.method == "POST" and request.object.endswith("/saved_model.pb"))
    with Attempt(run) as first:
        assert hold.reached.wait(240)
        first.process.send_signal(signal.SIGSTOP)
        with Attempt(run) as second:
            assert 0 == second.wait(), second.events[-1]
        hold.released.set()
        first.process.send_signal(signal.SIGCONT)
        assert 75 == first.wait(), first.events[-1]

    assert SUPERSEDED in first.events[-1]["message"]
    check_published(output, undisturbed, tmp_path)


def test_other_owner_waits_and_takes_over(
    uploaded: tuple[str, ...], output: Store, undisturbed: str, tmp_path: Path
) -> None:
    """Another owner waits until the claim expires, then takes the run over and ends in the same bits."""
    run = [*uploaded, "--output.uri", output.uri, "--checkpoint.takeover", "5"]
    with Attempt([*run, "--run.job_uid", "uid-1"]) as first:
        assert first.wait_for("stage.started", 2)
        first.stop(signal.SIGKILL)
    with Attempt([*run, "--run.job_uid", "uid-2"]) as second:
        assert 0 == second.wait(), second.events[-1]

    assert "uid-1" == second.wait_for("claim.waiting")["holder"]
    assert second.loaded()
    check_published(output, undisturbed, tmp_path)


def test_other_owner_gives_way(uploaded: tuple[str, ...], output: Store) -> None:
    """Another owner that sees the claim renewed ends with exit 75, naming the holder."""
    run = [*uploaded, "--output.uri", output.uri, "--checkpoint.takeover", "8", "--fine_tuning.epochs", "500"]
    with Attempt([*run, "--run.job_uid", "uid-1"]) as first:
        assert first.wait_for("stage.started", 2)
        with Attempt([*run, "--run.job_uid", "uid-2"]) as second:
            assert 75 == second.wait(), second.events[-1]
    assert "uid-1 works on this run" in second.events[-1]["message"]


CLAIM = """
import sys
from job import storage; from job.runs import checkpoints as checkpoint; from job.observability import log
from job.runtime import timing

log.configure(console=False, level="info")
output = storage.open_store(sys.argv[1])
with checkpoint.Checkpoints(output, "c", identity={}, owner="", interval=60.0, takeover=2.0, timing=timing.Timing()):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_two_containers_with_one_name(output: Store) -> None:
    """Two containers that share a host's name, each the first process of its own, see that the other one is alive."""
    if reason := prerequisites.reason_to_skip("root, with PID namespaces"):
        pytest.skip(reason)
    command = [*prerequisites.UNSHARE, sys.executable, "-c", CLAIM, output.uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert b"claimed\n" == first.stdout.readline()
        second = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        first.stdin.close()

    assert 0 == first.returncode
    assert "claimed" not in second.stdout
    assert "process 1 on" in second.stderr
    assert "works on this run" in second.stderr
