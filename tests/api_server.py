"""An API server of Kubernetes, as far as `finetune plan` needs it: a CronJob to get, and Jobs to create."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE = "pictures"
_BATCH = f"/apis/batch/v1/namespaces/{NAMESPACE}"

CRONJOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "finetune", "uid": "cronjob-uid", "labels": {"of": "the CronJob"}},
    "spec": {
        "schedule": "0 0 1 1 *",
        "suspend": True,
        "jobTemplate": {
            "metadata": {"labels": {"team": "ml"}, "annotations": {"why": "nightly"}},
            "spec": {"backoffLimit": 10, "template": {"spec": {"unknownToThisClient": {"a": [1, None]}}}},
        },
    },
}


class ApiServer(ThreadingHTTPServer):
    """Answers with the one CronJob, and takes Jobs as the API server does: a name once.

    Attributes:
        jobs: name -> Job that it took.
        refusals: HTTP method -> status and message that it answers instead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Batch)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.refusals: dict[str, tuple[int, str]] = {}

    def connect(self) -> tuple[Any, str]:
        """Return a client of this server, and the namespace."""
        from kubernetes import client

        configuration = client.Configuration(host=f"http://127.0.0.1:{self.server_port}")
        configuration.retries = False
        return client.ApiClient(configuration), NAMESPACE


class Answer(BaseHTTPRequestHandler):
    """Answers with JSON."""

    def send(self, status: int, document: object) -> None:
        """Send an answer."""
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no log."""


class _Batch(Answer):
    server: ApiServer

    def do_GET(self) -> None:  # http.server's name
        if "GET" in self.server.refusals:
            self._refuse(*self.server.refusals["GET"])
        elif self.path == f"{_BATCH}/cronjobs/finetune":
            self.send(200, CRONJOB)
        else:
            self._refuse(404, f"{self.path} not found")

    def do_POST(self) -> None:  # http.server's name
        job = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "POST" in self.server.refusals:
            self._refuse(*self.server.refusals["POST"])
        elif self.path != f"{_BATCH}/jobs":
            self._refuse(404, f"{self.path} not found")
        elif job["metadata"]["name"] in self.server.jobs:
            self._refuse(409, "it already exists")
        else:
            self.server.jobs[job["metadata"]["name"]] = job
            self.send(201, job)

    def _refuse(self, status: int, message: str) -> None:
        self.send(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message})


@contextlib.contextmanager
def running() -> Iterator[ApiServer]:
    """Yield a server that answers."""
    with ApiServer() as server, serving(server):
        yield server


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer meanwhile."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield
    server.shutdown()
    thread.join()
