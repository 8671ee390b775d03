"""Events on the Job and the Pod: what is sent to the API server, and that it never disturbs the run."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
import time
from datetime import datetime
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from api_server import Answer, serving

from job.config.settings import EventsSettings, RunSettings
from job.observability import kube_events
from job.observability.kube_events import EventRecorder
from job.observability.progress import Progress
from job.watch.api_reader import Cluster
from job.watch.pods import job_container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POD = EventsSettings(enabled=True, pod_name="flowers-1-abcde", pod_uid="pod-uid")
JOB = RunSettings(job_uid="job-uid", job_name="flowers-1")


class ApiServer(ThreadingHTTPServer):
    """Takes Events as the API server does, POST /api/v1/namespaces/NAMESPACE/events, and answers GET from a table.

    Attributes:
        events: what it took.
        found: what GET returns, by path.
        status: what it answers; other than 201 it takes nothing.
        answers: set while it answers; it hangs otherwise.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Take)
        self.events: list[dict[str, Any]] = []
        self.found: dict[str, Any] = {}
        self.status = 201
        self.answers = threading.Event()
        self.answers.set()

    def connect(self) -> tuple[Any, str]:
        """Return a client of this server, and the namespace."""
        from kubernetes import client

        configuration = client.Configuration(host=f"http://127.0.0.1:{self.server_port}")
        configuration.retries = False
        return client.CoreV1Api(client.ApiClient(configuration)), "pictures"


class _Take(Answer):
    server: ApiServer

    def do_GET(self) -> None:  # noqa: N802  # http.server's name
        self.send(200, self.server.found[self.path.partition("?")[0]])

    def do_POST(self) -> None:  # noqa: N802  # http.server's name
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.answers.wait(60)
        if self.server.status == 201:
            assert self.path == "/api/v1/namespaces/pictures/events"
            self.server.events.append(body)
        self.send(self.server.status, body if self.server.status == 201 else {"message": "no"})


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Return a server that takes Events, and is not given up on a busy machine."""
    importlib.import_module("kubernetes.client")  # takes seconds, which are none of the recorder's patience
    monkeypatch.setattr(kube_events, "TIMEOUT", (60.0, 60.0))
    with ApiServer() as server, serving(server):
        yield server


def record(server: ApiServer, *events: tuple[str, dict[str, Any]], patience: float = 60.0) -> None:
    """Tell a stream of events whose only listener records them on the server, and end it."""
    progress = Progress([EventRecorder(POD, JOB, connect=server.connect, patience=patience)])
    for name, facts in events:
        progress.event(name, **facts)
    progress.close()


def test_an_event_is_recorded_on_the_job_and_on_the_pod(api_server: ApiServer) -> None:
    """What happens appears in `kubectl describe` of both, by their UIDs, with a time and the facts as text."""
    record(api_server, ("stage.started", {"stage": "fine_tuning", "epochs": 10}))

    assert [("Job", "job-uid", "batch/v1"), ("Pod", "pod-uid", "v1")] == [
        (one["involvedObject"]["kind"], one["involvedObject"]["uid"], one["involvedObject"]["apiVersion"])
        for one in api_server.events
    ]
    for one in api_server.events:
        assert ("Normal", "StageStarted", "stage=fine_tuning epochs=10") == (
            one["type"], one["reason"], one["message"]
        )  # fmt: skip
        assert abs(datetime.fromisoformat(one["lastTimestamp"]).timestamp() - time.time()) < 60
    assert len({one["metadata"]["name"] for one in api_server.events}) == 2


def test_a_failure_is_a_warning_with_message_and_remedy(api_server: ApiServer) -> None:
    """A failed run's Event is a Warning, its reason that of the error, its text what to do, cut to what is allowed."""
    facts = {"severity": "error", "reason": "Data", "message": "too few " * 200, "remedy": "add some", "exit_code": 3}

    record(api_server, ("run.failed", facts))

    [on_job, _] = api_server.events
    assert ("Warning", "DataFailed") == (on_job["type"], on_job["reason"])
    assert 1024 == len(on_job["message"])
    assert on_job["message"].startswith("too few ")


@pytest.mark.parametrize(
    ("severity", "kind"), [("debug", "Normal"), ("info", "Normal"), ("warning", "Warning"), ("error", "Warning")]
)
def test_type_is_that_of_the_severity(api_server: ApiServer, severity: str, kind: str) -> None:
    """What is a warning in the log is an Event of type Warning, which `kubectl get events` shows apart."""
    record(api_server, ("images.quarantined", {"severity": severity, "count": 2}))

    assert [(kind, "Quarantined")] * 2 == [(one["type"], one["reason"]) for one in api_server.events]


def test_epochs_are_no_events(api_server: ApiServer) -> None:
    """Only what is rare is an Event: etcd is no log."""
    record(api_server, ("epoch.finished", {"epoch": 1}), ("input.listed", {"images": 2}))

    assert [] == api_server.events


def test_a_refusal_is_logged_once(api_server: ApiServer, capfd: pytest.CaptureFixture[str]) -> None:
    """Where Events are forbidden, the log says so once, and the stream continues."""
    from job.observability import log

    log.configure(console=False)
    api_server.status = 403

    record(api_server, ("run.started", {}), ("run.succeeded", {}))

    assert 1 == capfd.readouterr().err.count("events.not_recorded")


def test_an_api_server_that_hangs_holds_nothing_up(api_server: ApiServer) -> None:
    """Telling takes no time, however slow the server, and closing waits no longer than it should."""
    api_server.answers.clear()

    record(api_server, *[("run.started", {})] * 1000, patience=0.2)

    assert [] == api_server.events
    api_server.answers.set()


def test_client_is_imported_before_the_thread_starts() -> None:
    """No module is imported by two threads at a time, and a run that fails at once need not wait for it."""
    program = """
import sys, threading
from job.config.settings import EventsSettings, RunSettings
from job.observability.kube_events import EventRecorder

imported = []
start = threading.Thread.start
threading.Thread.start = lambda thread: (imported.append("kubernetes.client" in sys.modules), start(thread))
EventRecorder(EventsSettings(enabled=True), RunSettings()).close()
before = {*sys.modules}
import kubernetes.client, kubernetes.config
print(imported, {*sys.modules} - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "[True] set()" == done.stdout.strip()


def test_without_names_nothing_is_sent(api_server: ApiServer) -> None:
    """Where the chart has not said who this Pod is, there is nothing to record on."""
    recorder = EventRecorder(EventsSettings(enabled=True), RunSettings(), connect=api_server.connect, patience=60.0)
    progress = Progress([recorder])

    progress.event("run.started")
    progress.close()

    assert [] == api_server.events


def test_pods_are_read_oldest_first(api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Job's Pods are in the order of their creation, independent of the order of the API server's response.

    A sidecar that a webhook has put first is not taken for the container of the job.
    """
    from kubernetes.config import kube_config

    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api_server.server_port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "pictures"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    made = {"b-2": "2026-01-01T00:00:20Z", "a-3": "2026-01-01T00:01:00Z", "a-1": "2026-01-01T00:00:20Z"}
    spec = {"containers": [{"name": "istio-proxy"}, {"name": "flowers"}]}
    items = [{"metadata": {"name": name, "creationTimestamp": at}, "spec": spec} for name, at in made.items()]
    api_server.found = {"/api/v1/namespaces/pictures/pods": {"kind": "PodList", "apiVersion": "v1", "items": items}}

    template = {"spec": {"containers": [{"name": "flowers"}]}}
    pods = Cluster().pods({"metadata": {"uid": "job-uid"}, "spec": {"template": template}})

    assert ["a-1", "b-2", "a-3"] == [pod["metadata"]["name"] for pod in pods]
    assert {"flowers"} == {job_container(pod["spec"]) for pod in pods}
