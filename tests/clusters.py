"""A real cluster, seen from a test: kubectl and helm in a namespace of the test's own, and a bucket the Pods reach."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import kubernetes
import numpy as np
import pytest
from charts import CHART
from digests import arrays_sha256
from light_runs import FOLDER
from PIL import Image

from job.storage import emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from charts import Helm

Object = dict[str, Any]

HOST = os.environ.get("FINETUNE_TEST_HOST", "host.cluster.internal")
"""The name by which a Pod reaches the machine that the tests run on."""

TINY = {
    "config.model.weights": "none",
    "config.model.alpha": 0.35,
    "config.model.image_size": 32,
    "config.feature_extraction.epochs": 1,
    "config.fine_tuning.epochs": 1,
    "config.export.verify_images": 8,
    "config.report.enabled": False,
    "config.report.label_errors": False,
    "config.device.require_gpu": False,  # the node only advertises its GPUs
    "config.device.threads": 1,
    "resources.requests.cpu": "100m",
    "resources.requests.memory": "1Gi",
    "test.resources.limits.cpu": 2,
}
"""Values for a run of seconds."""


RAW = {"_preload_content": False, "_request_timeout": 60}
"""Options of the client of Kubernetes: the answer as it is, within a minute."""

LIGHT = "light"
"""Name of the ConfigMap with the modules that make runs light, in every namespace of the tests."""


def light(values: Object) -> Object:
    """Return values for the same run, made light: see light_runs. The image is the same."""
    added = {
        "extraVolumes": {"name": LIGHT, "configMap": {"name": LIGHT}},
        "extraVolumeMounts": {"name": LIGHT, "mountPath": "/light", "readOnly": True},
        "extraEnv": {"name": "PYTHONPATH", "value": "/light"},
    }
    return values | {name: [*values.get(name, []), one] for name, one in added.items()}


@dataclass(frozen=True)
class Bucket:
    """A bucket of the emulator.

    Attributes:
        name: its name.
        url: where this machine reaches the emulator.
        pod_url: where a Pod reaches it.
    """

    name: str
    url: str
    pod_url: str

    def uri(self, prefix: str) -> str:
        """Return the URI of a prefix."""
        return f"gs://{self.name}/{prefix}"

    def names(self, prefix: str = "") -> list[str]:
        """Return the names of the objects under a prefix."""
        query = urllib.parse.urlencode({"prefix": prefix})
        return [
            one["name"] for one in json.loads(_ask(f"{self.url}/storage/v1/b/{self.name}/o?{query}")).get("items", [])
        ]

    def read(self, name: str) -> bytes:
        """Return an object's bytes."""
        quoted = urllib.parse.quote(name, safe="")
        return _ask(f"{self.url}/storage/v1/b/{self.name}/o/{quoted}?alt=media")

    def write(self, name: str, data: bytes) -> None:
        """Write an object."""
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        _ask(f"{self.url}/upload/storage/v1/b/{self.name}/o?{query}", data)

    def delete(self, name: str) -> None:
        """Delete an object."""
        quoted = urllib.parse.quote(name, safe="")
        _ask(f"{self.url}/storage/v1/b/{self.name}/o/{quoted}", method="DELETE")

    def values(self, input_prefix: str = "pictures", output_prefix: str = "models") -> Object:
        """Return the chart's values for a run from and to this bucket."""
        return {
            "config.input.uri": self.uri(input_prefix),
            "config.output.uri": self.uri(output_prefix),
            "extraEnv": [{"name": "STORAGE_EMULATOR_HOST", "value": self.pod_url}],
        }

    def only_run(self, output_prefix: str = "models") -> str:
        """Return the prefix of the one run under an output."""
        [run] = {"/".join(name.split("/")[:3]) for name in self.names(f"{output_prefix}/runs/")}
        return run

    def model_sha256(self, output_prefix: str, folder: Path) -> str:
        """Return the sha256 over all arrays of the model of the one run under an output, which a folder receives."""
        file = folder / f"{output_prefix}.keras"
        file.write_bytes(self.read(f"{self.only_run(output_prefix)}/model/model.keras"))
        return arrays_sha256(file)


def _ask(address: str, data: bytes | None = None, *, method: str | None = None) -> bytes:
    request = urllib.request.Request(address, data, method=method)  # noqa: S310  # http, to this machine
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


def new_bucket(pod_url: str) -> Bucket:
    """Make an empty bucket in the emulator that Pods reach at ``pod_url``."""
    url = pod_url.replace(HOST, "127.0.0.1")
    bucket = Bucket(f"bucket-{uuid.uuid4().hex[:12]}", url, pod_url)
    emulator.create_bucket(url, bucket.name)
    return bucket


def fill(bucket: Bucket, *, images: int, prefix: str = "pictures") -> None:
    """Draw pictures of two classes into a bucket: noise around a dark and around a light gray."""
    for number in range(images):
        name, shade = (("dark", 60), ("light", 190))[number % 2]
        noise = np.random.default_rng(number).integers(-50, 50, (40, 30, 3))
        file = io.BytesIO()
        Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(file, "jpeg")
        bucket.write(f"{prefix}/{name}/{number}.jpg", file.getvalue())


class Namespace:
    """A namespace, and what a test does in it.

    Args:
        name: its name.
        helm: the helm to install with.
        image: repository and tag of the job's image.
    """

    def __init__(self, name: str, helm: Helm, image: str) -> None:
        self.name = name
        self.image = image
        self._helm = helm

    # kubectl

    def add_light(self) -> None:
        """Create the ConfigMap that `light` mounts."""
        self.kubectl("create", "configmap", LIGHT, f"--from-file={FOLDER}")

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace, and return what it prints."""
        done = subprocess.run(
            ["kubectl", "--namespace", self.name, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout + ("" if check else done.stderr)

    def get(self, *arguments: str) -> Any:
        """Return what kubectl gets, as an object; a list's items."""
        found = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return found["items"] if found["kind"] == "List" else found

    # What is read again and again until something happens, from the API server: each start of kubectl takes 0.1 s of
    # CPU time.

    @cached_property
    def _api(self) -> kubernetes.client.ApiClient:
        return kubernetes.config.new_client_from_config(os.environ["KUBECONFIG"])

    def job(self, name: str) -> Object:
        """Return a Job."""
        read = kubernetes.client.BatchV1Api(self._api).read_namespaced_job
        return dict(json.loads(read(name, self.name, **RAW).data))

    def pods(self, job: str, *, worker: int | None = None) -> list[Object]:
        """Return a Job's Pods, or those of one of its workers, the oldest first."""
        index = "" if worker is None else f",batch.kubernetes.io/job-completion-index={worker}"
        selector = f"batch.kubernetes.io/job-name={job}{index}"
        read = kubernetes.client.CoreV1Api(self._api).list_namespaced_pod
        found = json.loads(read(self.name, label_selector=selector, **RAW).data)["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def log(self, pod: str) -> list[Object]:
        """Return the lines of a Pod's log that are the job's own; none before its container runs."""
        read = kubernetes.client.CoreV1Api(self._api).read_namespaced_pod_log
        try:
            text = read(pod, self.name, container="finetune", **RAW).data.decode()
        except kubernetes.client.ApiException:
            return []
        lines = []
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def events(self, kind: str) -> list[tuple[str, str]]:
        """Return (type, reason) of the Events that the job itself recorded on objects of a kind, in their order."""
        found = self.get("events", "--field-selector", f"involvedObject.kind={kind},source=finetune")
        return [(one["type"], one["reason"]) for one in sorted(found, key=lambda one: one["metadata"]["name"])]

    def evict(self, pod: str) -> None:
        """Evict a Pod, as draining a node does."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.name}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))

    def kill(self, pod: str) -> None:
        """Kill the container of a Pod, as a crash does; skip the test where that is not possible."""
        if not shutil.which("ctr"):
            pytest.skip(
                "ctr of the node's containerd is not on the path: nothing else kills a container as a crash does"
            )
        statuses = self.get("pod", pod)["status"]["containerStatuses"]
        [container] = [status["containerID"] for status in statuses if status["name"] == "finetune"]
        command = ["ctr", "tasks", "kill", "--signal", "SIGKILL", container.removeprefix("containerd://")]
        subprocess.run(command, check=True, timeout=30)

    def suspend(self, job: str, *, value: bool) -> None:
        """Suspend a Job, or let it continue, as Kueue does."""
        patch = json.dumps({"spec": {"suspend": value}})
        self.kubectl("patch", "job", job, "--type=merge", "--field-manager=kueue", "--patch", patch)

    # finetune

    def watch(self, job: str, **environment: str) -> subprocess.Popen[str]:
        """Start `finetune watch`, whose log is on its stderr."""
        command = [sys.executable, "-m", "job", "watch", job, "--namespace", self.name]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)

    def watched(self, job: str, **environment: str) -> tuple[int, list[Object]]:
        """Return exit code and log of `finetune watch`, once the Job has ended."""
        process = self.watch(job, **environment)
        _, text = process.communicate(timeout=180)
        return process.returncode, [json.loads(line) for line in text.splitlines()]

    # helm

    def helm(self, *arguments: str | Path, check: bool = True) -> str:
        """Run helm in the namespace, and return what it prints."""
        done = self._helm.run(*arguments, "--namespace", self.name, check=check)
        return done.stdout + ("" if check else done.stderr)

    def settings(self, **values: Any) -> list[str]:
        """Return flags for the image and these values."""
        repository, _, tag = self.image.rpartition(":")
        given = {"image.repository": repository, "image.tag": tag, "image.pullPolicy": "Never", **values}
        flags = []
        for key, value in given.items():
            flags += ["--set-json", f"{key}={json.dumps(value)}"]
        return flags

    def install(self, values: Object, *, release: str = "finetune", command: str = "install") -> str:
        """Install or upgrade the chart, and return the Job's name."""
        self.helm(command, release, CHART, *self.settings(**values))
        selector = f"app.kubernetes.io/instance={release}"
        jobs = [one for one in self.get("jobs", "--selector", selector) if "deletionTimestamp" not in one["metadata"]]
        return str(max(jobs, key=lambda job: job["metadata"]["creationTimestamp"])["metadata"]["name"])

    # Waiting

    def wait(self, what: Callable[[], Any], *, seconds: float = 120.0) -> Any:
        """Wait until ``what`` returns something true, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s:\n{self.describe()}")
            time.sleep(0.5)
        return found

    def describe(self) -> str:
        """Return the state of the namespace, for the message of a test that timed out."""
        logs = [self.kubectl("logs", pod["metadata"]["name"], "--tail=20", check=False) for pod in self.get("pods")]
        return "\n".join([self.kubectl("get", "jobs,pods,events"), *logs])

    def finish(self, job: str, *, seconds: float = 180.0) -> str:
        """Wait until a Job has ended, and return "Complete" or "Failed"."""

        def outcome() -> str | None:
            for condition in self.job(job)["status"].get("conditions", []):
                if condition["type"] in {"Complete", "Failed"} and condition["status"] == "True":
                    return str(condition["type"])
            return None

        return str(self.wait(outcome, seconds=seconds))

    def wait_for_event(
        self,
        job: str,
        name: str,
        *,
        count: int = 1,
        after: Sequence[Object] = (),
        worker: int | None = None,
        seconds: float = 120.0,
        **facts: Any,
    ) -> Object:
        """Wait until the log of a Job's newest Pod has an event ``count`` times, and return that Pod.

        Args:
            job: the Job's name.
            name: the event's.
            count: how often.
            after: Pods that do not count, since they are of the past.
            worker: whose Pod it must be.
            seconds: limit of the wait.
            facts: what the event must say.
        """
        old = {pod["metadata"]["uid"] for pod in after}

        def found() -> Object | None:
            pods = [pod for pod in self.pods(job, worker=worker) if pod["metadata"]["uid"] not in old]
            if not pods:
                return None
            lines = [one for one in self.log(pods[-1]["metadata"]["name"]) if one.get("event", one["message"]) == name]
            return pods[-1] if len([one for one in lines if facts.items() <= one.items()]) >= count else None

        return dict(self.wait(found, seconds=seconds))


def exit_codes(pods: list[Object]) -> list[int | None]:
    """Return the exit code of each Pod's container, None where it has not ended."""
    return [
        status.get("state", {}).get("terminated", {}).get("exitCode")
        for pod in pods
        for status in pod["status"].get("containerStatuses", [])
        if status["name"] == "finetune"
    ]
