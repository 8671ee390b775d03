"""`finetune watch`: what is watched, what the cluster's objects say in words, and a run by its status.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from job import errors, watch
from job.watch import Target

if TYPE_CHECKING:
    from pathlib import Path


def pod(*, state: dict[str, Any] | None = None, phase: str = "Pending", **status: object) -> dict[str, Any]:
    """Return a Pod whose container is in a state."""
    containers = [{"name": "istio-proxy", "state": {"running": {}}}]
    if state:
        containers.append({"name": "finetune", "state": state})
    return {"status": {"phase": phase, "containerStatuses": containers, **status}}


def ended(code: int, finished: str = "2026-01-01T00:00:00Z", **more: object) -> dict[str, Any]:
    """Return a Pod that has ended."""
    return pod(state={"terminated": {"exitCode": code, "finishedAt": finished, **more}}, phase="Failed")


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["flowers"], Target("flowers")),
        (["job/flowers", "-n", "ml"], Target("flowers", "ml")),
        (["job.batch/flowers", "--namespace=ml", "--context", "gke"], Target("flowers", "ml", "gke")),
        (["gs://b/models/runs/x"], Target("gs://b/models/runs/x")),
    ],
)
def test_what_is_watched(arguments: list[str], target: Target) -> None:
    """A Job, as kubectl names it, with its namespace and context; or a run by its URI."""
    assert target == watch.parse(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "none"), (["a", "b"], "a, b"), (["a", "--namespce", "x"], "--namespace"), (["a", "-n"], "needs a value")],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    """What cannot be watched is said, with the nearest flag."""
    with pytest.raises(errors.SettingsError) as caught:
        watch.parse(arguments)

    assert said.removeprefix("--") in caught.value.message


@pytest.mark.parametrize(
    ("found", "warnings", "said"),
    [
        (
            pod(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
                ]
            ),
            (),
            "Unschedulable: 0/1 nodes",
        ),
        (pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "no"}}), (), "ImagePullBackOff: no"),
        (
            pod(initContainerStatuses=[{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            (),
            "CrashLoopBackOff: ",
        ),
        (pod(state={"waiting": {"reason": "ContainerCreating"}}), ("a", "FailedMount: x"), "FailedMount: x"),
        (pod(), (), "its container is being made"),
    ],
)
def test_why_a_pod_is_pending(found: dict[str, Any], warnings: tuple[str, ...], said: str) -> None:
    """No node, no image, a broken init container, a volume that is not there: each in the cluster's own words."""
    assert said == watch.pending_because(found, warnings)


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (ended(0), 0, "exit code 0: published, or already published"),
        (ended(3), 3, "exit code 3: the data are wrong, or not there (the Job has failed)"),
        (ended(75), 75, "exit code 75: stopped by a signal, or superseded; the state is saved (does not count)"),
        (ended(137, reason="OOMKilled"), 137, "killed, out of memory: raise resources.limits.memory (counts)"),
        (ended(137), 137, "killed, signal 9 (counts)"),
        (ended(42), 42, "exit code 42: unknown (counts)"),
        (pod(), None, "nobody saw how"),
        (
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "Evicted", "message": "taint"}]),
            75,
            "Evicted: taint (does not count)",
        ),
    ],
)
def test_how_a_pod_ended(found: dict[str, Any], code: int | None, said: str) -> None:
    """The exit code's meaning, and what the Job makes of it; an eviction before its exit code."""
    assert said in watch.how_it_ended(found, code)


def test_next_attempt() -> None:
    """After n failed Pods the Job waits 10 s times 2 to the n-1, at most ten minutes; not while one is alive."""
    at = {n: watch.next_attempt([ended(1)] * n) for n in (1, 2, 30)}
    start = time.mktime((2026, 1, 1, 0, 0, 0, 0, 0, 0)) - time.timezone

    expected = {n: time.strftime("%H:%M:%S", time.localtime(start + wait)) for n, wait in ((1, 10), (2, 20), (30, 600))}
    assert expected == at
    assert watch.next_attempt([ended(1), pod(state={"running": {}})]) is None
    assert watch.next_attempt([ended(0)]) is None
    assert watch.next_attempt([]) is None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('{"reason": "Data", "message": "m"}', {"reason": "Data", "message": "m"}),
        ("Killed\nlast line\n", {"message": "last line"}),
        ("[1]", {}),
        (None, {}),
        ("", {}),
    ],
)
def test_last_words(message: str | None, words: dict[str, Any]) -> None:
    """The termination message is the job's JSON, or the end of the log where it could not write any."""
    assert words == watch.last_words(message)


def write_status(folder: Path, **facts: object) -> None:
    """Write a status.json into a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new").write_text(json.dumps({"started_at": "2026-01-01T00:00:00Z", "run_uri": str(folder), **facts}))
    (folder / "new").rename(folder / "status.json")


WATCH = """
from job import __main__, watch
watch._STATUS_INTERVAL = 0.05
raise SystemExit(__main__.main())
"""
"""The program `finetune`, which looks for news at shorter intervals."""


def watching(folder: Path) -> subprocess.Popen[str]:
    """Watch a run's folder in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNE_")}
    return subprocess.Popen(
        [sys.executable, "-c", WATCH, "watch", str(folder)], env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"state": "succeeded", "message": "published"}, 0),
        ({"state": "failed", "reason": "Data", "message": "no pictures", "remedy": "add some"}, 3),
        ({"state": "failed", "reason": "Unexpected"}, 1),
    ],
)
def test_a_run_that_has_ended(tmp_path: Path, facts: dict[str, object], code: int) -> None:
    """A run by its folder or URI: watch tells how it ended, and exits as it did."""
    write_status(tmp_path / "run", **facts)

    done = watching(tmp_path / "run")
    _, said = done.communicate(timeout=60)

    assert code == done.returncode
    assert str(facts.get("message", "run.failed")) in said


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    """A run under way is followed until its end."""
    write_status(tmp_path / "run", state="running", stage="fine_tuning", epoch=1, epochs=2)
    process = watching(tmp_path / "run")
    assert process.stderr
    while "stage.started" not in process.stderr.readline():
        pass

    write_status(tmp_path / "run", state="succeeded")

    assert 0 == process.wait(60)


def test_no_run(tmp_path: Path) -> None:
    """Where there is no run, that is said at once, with what its URI looks like."""
    process = watching(tmp_path / "nothing")
    _, said = process.communicate(timeout=60)

    assert 3 == process.returncode
    assert "/runs/ID" in said


def test_no_cluster(tmp_path: Path) -> None:
    """Without a kubeconfig it exits with 2, naming the variable."""
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "job", "watch", "flowers"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert 2 == done.returncode
    assert "KUBECONFIG" in done.stderr
