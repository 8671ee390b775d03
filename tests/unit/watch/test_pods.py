"""The state of a Pod in words: why it is pending, how it ended, when the next one starts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from pods import ended, of_worker, pod

from job import errors
from job.watch.pods import (
    container_state,
    counts,
    deciding_pod,
    describe_end,
    job_container,
    next_attempt_time,
    parse_termination_message,
    pending_reason,
    was_rejected,
    worker_index,
)

BY_RULE = "Container finetune for pod ml/p-2 failed with exit code 3 matching FailJob rule at index 2"
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]
DISK = 'Usage of EmptyDir volume "cache" exceeds the limit "10Mi".'


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
        (pod(), (), "its container is being created"),
    ],
)
def test_why_a_pod_is_pending(found: dict[str, Any], warnings: tuple[str, ...], said: str) -> None:
    """No node, no image, a broken init container, a volume that is not there: each in the cluster's own words."""
    assert said == pending_reason(found, warnings)


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        (ended(0), 0, "exit code 0: published, or already published"),
        (ended(3), 3, "exit code 3: the data are wrong, or not there (the Job has failed)"),
        (
            ended(75),
            75,
            f"exit code 75: {errors.StoppedError.meaning} (does not count)",
        ),
        (ended(137, reason="OOMKilled"), 137, "killed, out of memory: raise resources.limits.memory (counts)"),
        (ended(137), 137, "killed, signal 9 (counts)"),
        (ended(42), 42, "exit code 42: unknown (counts)"),
        (pod(), None, "the reason is unknown"),
        (
            ended(137) | {"status": ended(137)["status"] | {"reason": "Evicted", "message": DISK}},
            137,
            f"Evicted: local disk: {DISK} (the next Pod is evicted as well: raise cache.sizeLimit",
        ),
        (
            {"status": {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices"}},
            None,
            "UnexpectedAdmissionError: no healthy devices (rejected by the kubelet, counts)",
        ),
        (
            pod(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "Evicted", "message": "taint"}]),
            75,
            "Evicted: taint (does not count)",
        ),
    ],
)
def test_how_a_pod_ended(found: dict[str, Any], code: int | None, said: str) -> None:
    """The exit code's meaning, and what the Job makes of it; an eviction before its exit code."""
    assert said in describe_end(found, code)


def test_next_attempt() -> None:
    """After n failed Pods the Job waits 10 s times 2 to the n-1, at most ten minutes; not while one is alive."""
    at = {n: next_attempt_time([ended(1)] * n) for n in (1, 2, 30)}
    start = time.mktime((2026, 1, 1, 0, 0, 0, 0, 0, 0)) - time.timezone

    expected = {n: time.strftime("%H:%M:%S", time.localtime(start + wait)) for n, wait in ((1, 10), (2, 20), (30, 600))}
    assert expected == at
    assert next_attempt_time([ended(1), pod(state={"running": {}})]) is None
    assert next_attempt_time([ended(0)]) is None
    assert next_attempt_time([]) is None
    lost = pod(state={"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}, phase="Failed")
    assert next_attempt_time([lost]) is None
    assert at[2] == next_attempt_time([lost, ended(1)])


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
    assert words == parse_termination_message(message)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pod(phase="Failed"), True),
        (pod(phase="Failed", state={"waiting": {"reason": "PodInitializing"}}), True),  # evicted while a sidecar starts
        (ended(3), False),
        (pod(), False),
    ],
)
def test_pod_that_never_started(found: dict[str, Any], expected: bool) -> None:
    """A Pod that has failed without a container that ran has neither a log nor an exit code to wait for."""
    assert expected == was_rejected(found)


@pytest.mark.parametrize(
    ("found", "code", "expected"),
    [
        (ended(20), 20, True),
        (ended(3), 3, True),
        (ended(75), 75, False),
        (ended(137), 137, True),
        (pod(phase="Failed"), None, True),
        (ended(137) | {"status": ended(137)["status"] | {"conditions": DISRUPTED}}, 137, False),
    ],
)
def test_ends_that_count(found: dict[str, Any], code: int | None, expected: bool) -> None:
    """Disruptions and the exit codes that are ignored do not count; a Pod that the kubelet rejects does."""
    assert expected == counts(found, code)


@pytest.mark.parametrize(
    ("reason", "message", "expected"),
    [
        ("PodFailurePolicy", BY_RULE, ("p-2", 3)),
        ("PodFailurePolicy", "another wording", None),
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit", None),
        ("DeadlineExceeded", None, None),
    ],
)
def test_deciding_pod(reason: str, message: str | None, expected: tuple[str, int] | None) -> None:
    """The condition of a Job that a rule has failed names the Pod and its exit code."""
    assert expected == deciding_pod({"type": "Failed", "reason": reason, "message": message})


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["finetune"], "finetune"),
        (["istio-proxy", "finetune"], "finetune"),
        (["istio-proxy", "node"], "node"),
        (["flowers", "istio-proxy"], "flowers"),
        ([], "finetune"),
    ],
    ids=["chart", "with a sidecar", "Kubeflow Trainer", "kubectl create job", "unknown"],
)
def test_container_of_the_job(names: list[str], expected: str) -> None:
    """The job's container is found in each kind of Job that the documents describe."""
    assert expected == job_container({"containers": [{"name": name} for name in names]})


def test_state_of_another_container() -> None:
    """The state is that of the job's container, by any name."""
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    assert [running, running] == [container_state(pod(state=running, container=name)) for name in ("flowers", "node")]


def test_worker_of_a_pod() -> None:
    """A Pod of an Indexed Job says which worker it is; one of another Job is no worker."""
    assert [0, 7] == [worker_index(of_worker(index, pod())) for index in (0, 7)]
    assert worker_index({"metadata": {"name": "p"}, **pod()}) is None
