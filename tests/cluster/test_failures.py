"""How a Job ends when something is wrong: one Pod where another would end the same, several where it might not."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from clusters import HOST, TINY, Bucket, Namespace, exit_codes

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Refuse(BaseHTTPRequestHandler):
    """A bucket without permission, as Google's storage refuses it."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        message = "job@project.iam.gserviceaccount.com does not have storage.objects.list access to the bucket."
        body = json.dumps({"error": {"code": 403, "message": message}}).encode()
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815  # http.server's names

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def forbidden() -> Iterator[str]:
    """Return the URL by which Pods reach a store that refuses everything."""
    with ThreadingHTTPServer(("0.0.0.0", 0), _Refuse) as server:  # noqa: S104  # the Pods have addresses of their own
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_gpu_that_no_node_has(namespace: Namespace) -> None:
    """`watch` reports why a Pod is Pending; Ctrl-C ends `watch` and not the Job."""
    job = namespace.install(TINY | {"gpu.resource": "nvidia.com/mig-7g.80gb"})

    watching = namespace.watch(job)
    assert watching.stderr
    line = json.loads(watching.stderr.readline())
    while "Insufficient" not in line["message"]:
        line = json.loads(watching.stderr.readline())
    watching.send_signal(2)

    assert ("pod.pending", True) == (line["event"], "Insufficient nvidia.com/mig-7g.80gb" in line["message"])
    assert 130 == watching.wait(20)
    assert "active" in namespace.job(job)["status"]


def test_no_usable_gpu(namespace: Namespace) -> None:
    """Where a GPU is required and none is usable, each Pod exits with 4 and says why; the Job fails after its limit."""
    job = namespace.install(
        {key: value for key, value in TINY.items() if key != "config.device.require_gpu"} | {"job.backoffLimit": 1}
    )

    watching = namespace.watch(job)
    assert "Failed" == namespace.finish(job)

    assert [4, 4] == exit_codes(namespace.pods(job))
    condition = namespace.job(job)["status"]["conditions"][-1]
    assert "BackoffLimitExceeded" == condition["reason"]
    assert '"reason": "Device"' in namespace.kubectl("describe", "pods").replace('\\"', '"')
    assert watching.stderr
    told = [json.loads(line) for line in watching.stderr]
    assert 4 == watching.wait(20)
    assert 2 == len([line for line in told if line.get("event") == "pod.ended" and line["exit_code"] == 4])
    assert "job.backing_off" in [line.get("event") for line in told]


def test_wrong_settings(namespace: Namespace) -> None:
    """Contradicting settings, which no schema can detect, fail the Job with its first Pod."""
    job = namespace.install(TINY | {"config.model.weights": "imagenet", "config.model.alpha": 0.9})

    assert "Failed" == namespace.finish(job)

    assert [2] == exit_codes(namespace.pods(job))
    assert "PodFailurePolicy" == namespace.job(job)["status"]["conditions"][-1]["reason"]
    assert "model.alpha" in namespace.kubectl("describe", "pods")


def test_missing_permission(namespace: Namespace, pictures: Bucket, forbidden: str) -> None:
    """A store that refuses ends the Job with its first Pod and exit code 5; Events on the Job say what is missing."""
    environment = [{"name": "STORAGE_EMULATOR_HOST", "value": forbidden}]

    job = namespace.install(TINY | pictures.values() | {"extraEnv": environment})

    assert "Failed" == namespace.finish(job)
    assert [5] == exit_codes(namespace.pods(job))
    assert ("Warning", "AccessFailed") in namespace.events("Job")


def test_a_failed_gate(namespace: Namespace, pictures: Bucket) -> None:
    """A model below the gate is published, latest.json does not name it, and the Job fails with exit code 6."""
    job = namespace.install(TINY | pictures.values() | {"config.gate.min_accuracy": 1, "config.run.seed": 3})

    outcome = namespace.finish(job)

    if "models/latest.json" in pictures.names():
        pytest.fail("with random weights the model is perfect: choose another seed")
    assert "Failed" == outcome
    assert [6] == exit_codes(namespace.pods(job))
    assert f"{pictures.only_run()}/_SUCCESS" in pictures.names()
