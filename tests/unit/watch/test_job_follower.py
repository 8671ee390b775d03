"""`finetune watch JOB`: a Job is followed to its end despite evictions, lost Pods, and workers that fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pods import ended, of_worker, pod

from job.errors import UsageError
from job.observability.progress import Event, Listener
from job.watch import job_follower
from job.watch.api_reader import Cluster
from job.watch.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FakeCluster:
    """A cluster with one Job, as its API server would show it from look to look.

    Args:
        looks: the Job's conditions and its Pods. The first look stays until a log is read to its end, the last one
            for ever.
        logs: the lines of a Pod's log in each connection, (time, line). The last connection has all of them.
        spec: of the Job.
        failed: number of Pods that the Job counts as failed.
    """

    namespace = "pictures"

    def __init__(
        self,
        *looks: tuple[list[dict[str, Any]], list[dict[str, Any]]],
        logs: dict[str, list[list[tuple[str, str]]]] | None = None,
        spec: dict[str, Any] | None = None,
        failed: int = 0,
    ) -> None:
        self._spec = spec or {}
        self._failed = failed
        self._looks = list(looks)
        self._logs = logs or {}
        self._is_read = False

    def job(self, name: str) -> dict[str, Any]:
        """Show the Job at the next look."""
        if self._is_read and len(self._looks) > 1:
            self._looks.pop(0)
        status = {"conditions": self._looks[0][0], "failed": self._failed}
        return {"metadata": {"uid": "job", "name": name}, "spec": self._spec, "status": status}

    def pods(self, _: object) -> list[dict[str, Any]]:
        """Show its Pods at that look."""
        return self._looks[0][1]

    def pod(self, name: str) -> dict[str, Any] | None:
        """Show one of these."""
        return next((one for one in self._looks[0][1] if one["metadata"]["name"] == name), None)

    def warnings(self, _: object) -> list[str]:
        """Warn of nothing."""
        return []

    def log_lines(self, pod: dict[str, Any], _: object = None) -> Iterator[tuple[str, str]]:
        """Yield a log, as far as this connection lasts."""
        connections = self._logs.get(pod["metadata"]["name"], [[]])
        if len(connections) > 1:
            yield from connections.pop(0)
        else:
            yield from connections[0]
            self._is_read = True


def of_job(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return a Pod with a name."""
    return {"metadata": {"name": name, "uid": name}, "spec": {"nodeName": "n"}, **found}


COMPLETE = [{"type": "Complete", "status": "True"}]
FAILED = [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 3"}]
RUNNING = of_job("p-1", pod(state={"running": {"startedAt": "2026-01-01T00:00:00Z"}}, phase="Running"))


def follow_job(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[Event]]:
    """Follow the cluster's Job; return the exit code and the events."""
    events: list[Event] = []

    class Recorder(Listener):
        def on_event(self, event: Event) -> None:
            events.append(event)

    monkeypatch.setattr(job_follower, "_POLL_INTERVAL", 0.01)
    replay = Replay([Recorder()], phases=False)
    code = job_follower.JobFollower(cluster, "flowers", replay).follow()
    replay.close()
    return code, events


def ended_pods(events: list[Event]) -> list[tuple[object, object]]:
    """Return name and exit code of each Pod that has ended."""
    return [(event.facts["pod"], event.facts["exit_code"]) for event in events if event.name == "pod.ended"]


@pytest.mark.parametrize(
    ("conditions", "pods", "code"),
    [
        (COMPLETE, [ended(0)], 0),
        (COMPLETE, [ended(75), ended(0)], 0),
        (FAILED, [ended(3)], 3),
        (FAILED, [ended(75), ended(1), ended(8)], 8),
        (FAILED, [], 1),
    ],
)
def test_job_that_has_ended(
    conditions: list[dict[str, Any]], pods: list[dict[str, Any]], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watch exits as the Job's last Pod did; with 1 where the Job failed and has no Pod."""
    named = [of_job(f"p-{n}", found) for n, found in enumerate(pods, 1)]
    exit_code, events = follow_job(FakeCluster((conditions, named)), monkeypatch)

    assert code == exit_code
    expected = [found["status"]["containerStatuses"][1]["state"]["terminated"]["exitCode"] for found in pods]
    assert [(f"p-{n}", code) for n, code in enumerate(expected, 1)] == ended_pods(events)
    assert ("job.completed" if conditions == COMPLETE else "job.failed") == events[-1].name


def test_pods_that_the_kubelet_rejects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Pod that never started a container has ended all the same, for the kubelet's reason."""
    status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices present"}

    code, events = follow_job(FakeCluster((FAILED, [of_job("p-1", {"status": status})])), monkeypatch)

    assert 1 == code
    [end] = [event for event in events if event.name == "pod.ended"]
    assert ("p-1", None) == (end.facts["pod"], end.facts["exit_code"])
    assert "no healthy devices present" in str(end.facts["message"])


def test_pod_that_was_evicted_and_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code of a Pod that no longer exists is read from its log; watch exits as the last Pod did."""
    stopped = json.dumps({"message": "run.stopped", "severity": "INFO", "exit_code": 75})
    cluster = FakeCluster(
        ([], [RUNNING]),
        ([], []),
        (FAILED, [of_job("p-2", ended(3))]),
        logs={"p-1": [[("2026-01-01T00:00:00Z", stopped)]]},
    )
    code, events = follow_job(cluster, monkeypatch)

    assert 3 == code
    assert [("p-1", 75), ("p-2", 3)] == ended_pods(events)


def test_log_that_is_cut_repeats_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log whose connection is cut is read again, and no line is reported twice."""
    lines = [(f"2026-01-01T00:00:0{n}Z", f"line {n}") for n in range(4)]
    cluster = FakeCluster(
        ([], [RUNNING]),
        (COMPLETE, [of_job("p-1", ended(0))]),
        logs={"p-1": [lines[:2], lines[:3], lines]},
    )
    _, events = follow_job(cluster, monkeypatch)

    assert [line for _, line in lines] == [event.name for event in events if event.name.startswith("line")]


def test_a_job_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped name of a Job is a usage error, and no failed run; the namespace is named."""
    cluster = object.__new__(Cluster)
    cluster.namespace = "ml"
    monkeypatch.setattr(cluster, "job", lambda _: None, raising=False)

    with pytest.raises(UsageError, match="no Job 'floers' in the namespace 'ml'"):
        job_follower.JobFollower(cluster, "floers", Replay([], phases=False)).follow()


def by_rule(pod: str, code: int) -> list[dict[str, Any]]:
    """Return the conditions of a Job that a Pod failed by a rule of the podFailurePolicy."""
    message = f"Container finetune for pod ml/{pod} failed with exit code {code} matching FailJob rule at index 2"
    return [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}]


OUT_OF_RETRIES = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "…"}]


def template(output: Path) -> dict[str, Any]:
    """Return the spec of a Job whose settings name an output."""
    annotations = {"finetune/config.yaml": f"output:\n  uri: {output}\n"}
    return {"template": {"metadata": {"annotations": annotations}}}


def write_record(output: Path, *attempts: dict[str, Any]) -> None:
    """Write the record of the Job."""
    (output / "jobs").mkdir()
    (output / "jobs/job.json").write_text(json.dumps({"run_id": "flowers-1", "attempts": attempts}))


DATA = {"pod": "p-2", "node": "gpu-7", "exit_code": 3, "reason": "Data", "message": "no pictures", "remedy": "add some"}
STOPPED = {"pod": "p-1", "node": "gpu-6", "exit_code": 75, "reason": "Stopped", "message": "stopped", "remedy": "none"}
STALLED = DATA | {"exit_code": 20, "reason": "Stall", "message": "no progress"}


@pytest.mark.parametrize(
    ("conditions", "pods", "attempt", "code"),
    [
        (by_rule("p-2", 3), [], DATA, 3),
        (by_rule("p-2", 3), [of_job("p-1", ended(75))], DATA, 3),
        (OUT_OF_RETRIES, [], STALLED, 20),
        (OUT_OF_RETRIES, [of_job("p-1", ended(75))], STALLED, 20),
        (COMPLETE, [], {"pod": "p-2", "node": "gpu-7", "exit_code": 0}, 0),
    ],
)
def test_pods_that_are_gone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    conditions: list[dict[str, Any]],
    pods: list[dict[str, Any]],
    attempt: dict[str, Any],
    code: int,
) -> None:
    """Message, remedy and exit code of the last Pod are those of the Job's record where its node was removed."""
    write_record(tmp_path, STOPPED, attempt)

    found, events = follow_job(FakeCluster((conditions, pods), spec=template(tmp_path), failed=1), monkeypatch)

    assert code == found
    end = [event.facts for event in events if event.name == "pod.ended"][-1]
    expected = {"pod": "p-2", "node": "gpu-7", "exit_code": code, "run_uri": f"{tmp_path}/runs/flowers-1"}
    expected |= {key: attempt[key] for key in ("reason", "remedy") if key in attempt}
    assert expected == {key: end.get(key) for key in expected}
    assert attempt.get("message") == end.get("said")
    assert f"exit code {code}:" in str(end["message"])


def test_record_is_not_read_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the deciding Pod is still there, no credentials for the store are needed."""
    monkeypatch.setattr(job_follower, "read_ends", lambda _: pytest.fail("it is read"))

    for conditions, pods, failed, code in (
        (by_rule("p-2", 3), [of_job("p-1", ended(75)), of_job("p-2", ended(3))], 1, 3),
        (OUT_OF_RETRIES, [of_job("p-1", ended(1)), of_job("p-2", ended(20))], 2, 20),
        (FAILED, [of_job("p-1", ended(75))], 1, 75),
    ):
        assert code == follow_job(FakeCluster((conditions, pods), failed=failed), monkeypatch)[0]


@pytest.mark.parametrize(
    ("conditions", "attempts", "code"),
    [
        (by_rule("p-2", 2), [STOPPED], 2),
        (by_rule("p-2", 2), None, 2),
        (OUT_OF_RETRIES, [STOPPED], 1),
        (OUT_OF_RETRIES, [STOPPED, {"pod": "p-2", "node": "gpu-7"}], 1),
        (COMPLETE, None, 0),
    ],
)
def test_pods_that_are_gone_without_a_record(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    conditions: list[dict[str, Any]],
    attempts: list[dict[str, Any]] | None,
    code: int,
) -> None:
    """A Pod that recorded no end has the exit code in the Job's condition, never that of another Pod."""
    if attempts:
        write_record(tmp_path, *attempts)
    pods = [] if conditions == COMPLETE else [of_job("p-1", ended(75))]

    found, events = follow_job(FakeCluster((conditions, pods), spec=template(tmp_path), failed=1), monkeypatch)

    assert code == found
    if attempts:
        [end] = [event for event in events if event.name == "pod.ended" and event.facts["pod"] != "p-1"]
        assert (code if code == 2 else None, None) == (end.facts["exit_code"], end.facts.get("reason"))
    else:
        [event] = [event for event in events if event.name == "job.record_unreadable"]
        assert str(tmp_path / "jobs/job.json") in str(event.facts["message"])
        assert "kubectl describe job" in str(event.facts["remedy"])


STARTED = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
INDEXED = {"parallelism": 2, "completions": 2, "completionMode": "Indexed"}


def running(index: int) -> dict[str, Any]:
    """Return a running Pod of a worker."""
    return of_worker(index, pod(state=STARTED, phase="Running"))


def test_log_of_worker_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several workers the log of worker 0 is replayed, also where another Pod is older; each end is reported."""
    logs = {f"p-{index}": [[("2026-01-01T00:00:00Z", f"line of {index}")]] for index in range(2)}
    cluster = FakeCluster(
        ([], [running(1), running(0)]),
        (COMPLETE, [of_worker(index, ended(0)) for index in (1, 0)]),
        logs=logs,
        spec=INDEXED,
    )

    code, events = follow_job(cluster, monkeypatch)

    assert 0 == code
    assert ["line of 0"] == [event.name for event in events if event.name.startswith("line of")]
    assert [("p-1", 0, 1), ("p-0", 0, 0)] == [
        (event.facts["pod"], event.facts["exit_code"], event.facts["worker"])
        for event in events
        if event.name == "pod.ended"
    ]


def test_worker_that_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch exits as the worker did that failed the Job, not as worker 0, which Kubernetes then stopped."""
    message = json.dumps({"reason": "NotFinite", "message": "the loss is nan", "remedy": "lower the rate"})
    cluster = FakeCluster(
        ([], [running(0), running(1)]),
        (by_rule("p-1", 7), [of_worker(0, ended(75)), of_worker(1, ended(7, message=message))]),
        spec=INDEXED,
        failed=1,
    )

    code, events = follow_job(cluster, monkeypatch)

    assert 7 == code
    assert {("p-0", 75), ("p-1", 7)} == {*ended_pods(events)}
    [end] = [event.facts for event in events if event.name == "pod.ended" and event.facts["pod"] == "p-1"]
    assert ("NotFinite", "the loss is nan", "lower the rate") == (end["reason"], end["said"], end["remedy"])


def test_lost_worker_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a worker's Pod that is gone with its node is reported while worker 0 is followed."""
    lost = of_worker(
        1, pod(state=STARTED, conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "Lost"}]), name="old"
    )
    cluster = FakeCluster(
        ([], [running(0), lost]),
        ([], [running(0), running(1)]),
        (COMPLETE, [of_worker(index, ended(0)) for index in (0, 1)]),
        logs={"p-0": [[], []]},
        spec=INDEXED,
    )

    code, events = follow_job(cluster, monkeypatch)

    assert 0 == code
    assert ("old", None) == ended_pods(events)[0]
    [end] = [event.facts for event in events if event.name == "pod.ended" and event.facts["pod"] == "old"]
    assert "Lost" in str(end["message"])
    assert "does not count" in str(end["message"])


def test_worker_without_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota that refuses the second worker's Pod is reported although the first one runs, and waits."""
    cluster = FakeCluster(
        ([], [running(0)]), (COMPLETE, [of_worker(index, ended(0)) for index in (0, 1)]), spec=INDEXED
    )
    monkeypatch.setattr(cluster, "warnings", lambda _: ["FailedCreate: exceeded quota"])

    _, events = follow_job(cluster, monkeypatch)

    assert "FailedCreate: exceeded quota" in [
        event.facts.get("message") for event in events if event.name == "job.waiting"
    ]


def test_back_off_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits for its next Pod is named, while the others run."""
    cluster = FakeCluster(
        ([], [running(0), of_worker(1, ended(20))]),
        (COMPLETE, [of_worker(0, ended(0)), of_worker(1, ended(20)), of_worker(1, ended(0), name="new")]),
        spec=INDEXED,
    )

    code, events = follow_job(cluster, monkeypatch)

    assert 0 == code
    [wait] = [event.facts["message"] for event in events if event.name == "job.backing_off"]
    assert str(wait).startswith("the next Pod of worker 1 comes at about ")


def test_deleted_job_of_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watching ends where the Job is deleted, although the end of another worker was not seen."""
    cluster = FakeCluster(([], [running(0), running(1)]), ([], []), spec=INDEXED)
    find = cluster.job
    monkeypatch.setattr(cluster, "job", lambda name: find(name) if cluster.pods(None) else find(name) and None)

    code, events = follow_job(cluster, monkeypatch)

    assert 75 == code
    assert "job.deleted" == events[-1].name
    assert {"p-0", "p-1"} == {pod for pod, _ in ended_pods(events)}
