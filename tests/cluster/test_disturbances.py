"""What a Job meets in its first weeks: full disks, lost nodes, a kubelet or an admission that refuses, outages.

Most of it is waiting, so everything is installed at once, in one namespace, and each test waits for its own release.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from charts import CHART
from clusters import HOST, TINY, Bucket, Namespace, Object, exit_codes, fill, light, new_bucket

from job.runs.job_record import MAX_STOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CPU = TINY | {"gpu.count": 0}
"""Values for a run without a GPU: many run at once."""

SLOW = CPU | {
    "config.model.image_size": 64,
    "config.fine_tuning.epochs": 5000,
    "config.fine_tuning.batch_size": 4,
}
"""Values for a second stage that lasts longer than its test."""

FILLER = {
    "name": "filler",
    "imagePullPolicy": "Never",
    "restartPolicy": "Always",
    "command": ["python", "-c", "import time; open('/other/file', 'wb').write(bytes(50 << 20)); time.sleep(3600)"],
    "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "200Mi"}},
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    "volumeMounts": [{"name": "other", "mountPath": "/other"}],
}
"""A sidecar that writes more to a volume than its limit."""

LONG = "flowers-of-the-whole-world-in-spring-and-in-summer-"
"""The most of a release's name but its last two characters: Helm allows 53."""

PROBE = """
apiVersion: v1
kind: Pod
metadata: {name: probe}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - {name: probe, image: probe, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
"""
"""A Pod that `restricted` admits, with the image's user."""

UIDS = range(1_000_660_000, 1_000_670_000)
"""Users of a namespace on OpenShift."""


class Outages:
    """A way to the emulator that can be interrupted, as by a network policy or an outage of the region.

    Args:
        port: of the emulator on this machine.

    Attributes:
        url: by which Pods reach it.
    """

    def __init__(self, port: int) -> None:
        self._emulator = ("127.0.0.1", port)
        self._is_down = threading.Event()
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("0.0.0.0", 0))  # noqa: S104  # the Pods have addresses of their own
        self.url = f"http://{HOST}:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self) -> None:
        """Cut every connection, and refuse new ones."""
        self._is_down.set()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Let connections through again."""
        self._is_down.clear()

    def close(self) -> None:
        """Refuse connections for good."""
        self.begin()
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = self._server.accept()
                if self._is_down.is_set():
                    client.close()
                    continue
                emulator = socket.create_connection(self._emulator)
                self._open += [client, emulator]
                for source, target in ((client, emulator), (emulator, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        for connection in (source, target):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Installed(NamedTuple):
    """Releases that were installed at once.

    Attributes:
        namespace: of all.
        bucket: with pictures, and an output for each release.
        outages: between two of the releases and the bucket.
        jobs: release -> its Job.
    """

    namespace: Namespace
    bucket: Bucket
    outages: Outages
    jobs: dict[str, str]


@pytest.fixture(scope="module")
def installed(new_namespace: Callable[..., Namespace], reachable_emulator: str) -> Iterator[Installed]:
    """Install everything that takes time to happen."""
    bucket = new_bucket(reachable_emulator)
    fill(bucket, images=20)
    outages = Outages(int(reachable_emulator.rpartition(":")[2]))
    namespace = new_namespace()

    def values(release: str, *, url: str = reachable_emulator) -> Object:
        through = {"extraEnv": [{"name": "STORAGE_EMULATOR_HOST", "value": url}]}
        return bucket.values(output_prefix=release) | through

    releases: dict[str, Object] = {
        "patient": SLOW | values("patient", url=outages.url),
        "impatient": SLOW | values("impatient", url=outages.url) | {"config.storage.retry_seconds": 3},
        "disk": SLOW
        | values("disk")
        | {
            "extraInitContainers": [FILLER | {"image": namespace.image}],
            "extraVolumes": [{"name": "other", "emptyDir": {"sizeLimit": "10Mi"}}],
        },
        "rejected": CPU
        | values("rejected")
        | {
            "job.backoffLimit": 1,
            "podSpec": {"nodeName": namespace.get("nodes")[0]["metadata"]["name"]},
            "resources.requests.cpu": "500",
            "resources.limits.cpu": "500",
        },
        "empty": CPU | values("empty") | {"config.input.uri": bucket.uri("nothing")},
    }
    nightly = CPU | values("nightly") | {"command": "validate", "cronjob": {"enabled": True, "schedule": "* * * * *"}}
    namespace.helm("install", "nightly", CHART, *namespace.settings(**nightly, **{"cronjob.suspend": True}))
    jobs = {release: namespace.install(light(given), release=release) for release, given in releases.items()}
    yield Installed(namespace, bucket, outages, jobs)
    outages.close()
    for release in (*releases, "nightly"):
        namespace.helm("uninstall", release, check=False)
    namespace.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false")


def ended(lines: list[Object]) -> list[tuple[int | None, str]]:
    """Return exit code and description of each Pod in the log of `finetune watch`."""
    return [(line["exit_code"], line["message"]) for line in lines if line.get("event") == "pod.ended"]


def test_outage_of_the_store(installed: Installed) -> None:
    """An outage is waited out for `storage.retry_seconds`; then the Pod ends with 20, and the next one resumes."""
    namespace, outages = installed.namespace, installed.outages
    patient, impatient = installed.jobs["patient"], installed.jobs["impatient"]
    for job in (patient, impatient):
        namespace.wait_for_event(job, "epoch.finished", stage="fine_tuning")

    outages.begin()
    namespace.wait(lambda: [20] == exit_codes(namespace.pods(impatient)))
    outages.end()

    first = namespace.pods(impatient)
    namespace.wait_for_event(impatient, "run.started", after=first, resumed=True)
    epochs = len([line for line in namespace.log(pod_name(namespace, patient)) if line["message"] == "epoch.finished"])
    namespace.wait_for_event(patient, "epoch.finished", count=epochs + 2)
    assert [None] == exit_codes(namespace.pods(patient))
    for job in (patient, impatient):
        namespace.kubectl("delete", "job", job, "--wait=false")


def pod_name(namespace: Namespace, job: str) -> str:
    """Return the name of a Job's newest Pod."""
    return str(namespace.pods(job)[-1]["metadata"]["name"])


def test_eviction_for_local_disk(installed: Installed) -> None:
    """`watch` reports an eviction for local disk; after ten of them without progress the Job ends with exit code 2."""
    namespace, bucket, job = installed.namespace, installed.bucket, installed.jobs["disk"]
    watching = namespace.watch(job)
    namespace.wait(lambda: namespace.pods(job)[:1] and namespace.pods(job)[0]["status"].get("reason") == "Evicted")
    name = f"disk/jobs/{namespace.job(job)['metadata']['uid']}.json"
    # Ten evictions take an hour, for their back-off.
    stop = {"node": "gpu-node-0", "started_at": "2026-01-01T00:00:00Z", "exit_code": 75, "signal": "SIGTERM"}
    record = json.loads(bucket.read(name)) if name in bucket.names("disk/jobs/") else {"run_id": None}
    bucket.write(name, json.dumps(record | {"attempts": [stop] * MAX_STOPS}).encode())

    assert "Failed" == namespace.finish(job)
    _, text = watching.communicate(timeout=60)

    assert 2 == watching.returncode, text
    *evictions, (code, _) = ended([json.loads(line) for line in text.splitlines()])
    assert 0 < len(evictions) < 3, text  # the next Pod may be evicted, too, before the record is written
    assert all("Evicted: local disk: " in said for _, said in evictions), text
    assert 2 == code
    [end] = [attempt for attempt in json.loads(bucket.read(name))["attempts"] if attempt["exit_code"] == 2]
    assert "local disk" in end["remedy"]


def test_kubelet_that_rejects(installed: Installed) -> None:
    """Pods that the kubelet rejects count, so that the Job ends; `watch` has the kubelet's reason, once for each."""
    code, lines = installed.namespace.watched(installed.jobs["rejected"])

    assert 1 == code
    ends = ended(lines)
    assert [None, None] == [exit_code for exit_code, _ in ends]
    assert all("OutOfcpu: " in said and "rejected by the kubelet" in said for _, said in ends), ends


def test_node_that_is_removed(installed: Installed) -> None:
    """Where a failed Job's Pods are gone, `watch` has message, remedy and exit code from the Job's record."""
    namespace, job = installed.namespace, installed.jobs["empty"]
    assert "Failed" == namespace.finish(job)
    before = namespace.watched(job)
    namespace.kubectl("delete", *(f"pod/{pod['metadata']['name']}" for pod in namespace.pods(job)), "--now")
    namespace.wait(lambda: not namespace.pods(job))

    after = namespace.watched(job, STORAGE_EMULATOR_HOST=installed.bucket.url)

    assert (3, 3) == (before[0], after[0])
    facts = ("pod", "message", "exit_code", "reason", "said", "remedy")
    [old], [new] = ([line for line in lines if line.get("event") == "pod.ended"] for _, lines in (before, after))
    assert {key: old[key] for key in facts} == {key: new[key] for key in facts}
    assert installed.bucket.uri("nothing") in new["said"]


def test_suspend_by_value(installed: Installed) -> None:
    """`cronjob.suspend` stops a schedule, and an upgrade with false starts it: no patch, and so no conflict."""
    namespace = installed.namespace

    def jobs() -> list[Any]:
        return list(namespace.get("jobs", "--selector", "app.kubernetes.io/instance=nightly"))

    assert [] == jobs()
    namespace.helm("upgrade", "nightly", CHART, "--reuse-values", "--set", "cronjob.suspend=false")
    namespace.wait(jobs)
    namespace.helm("upgrade", "nightly", CHART, "--reuse-values", "--set", "cronjob.suspend=true")
    assert namespace.get("cronjob", "nightly-finetune")["spec"]["suspend"] is True


def test_two_long_names(installed: Installed) -> None:
    """Two releases whose names differ in their end share no object: removing one leaves the other."""
    namespace = installed.namespace
    values = CPU | installed.bucket.values() | {"command": "validate"}
    first, second = (f"{LONG}{number:02}" for number in (1, 2))
    jobs = [namespace.install(values, release=release) for release in (first, second)]
    assert 2 == len(set(jobs))

    namespace.helm("uninstall", first, "--wait")

    assert "Complete" == namespace.finish(jobs[1]), namespace.describe()
    selector = ("--selector", f"app.kubernetes.io/instance={second}")
    assert {"Job", "ServiceAccount", "Role", "RoleBinding"} == {
        one["kind"] for one in namespace.get("jobs,serviceaccounts,roles,rolebindings", *selector)
    }
    namespace.helm("uninstall", second, "--wait")


def in_uids(field: str) -> Object:
    """Return the rule that a field of the Pod's security context is absent or one of the namespace's users."""
    name = f"object.spec.securityContext.{field}"
    inside = f"({name} >= {UIDS.start} && {name} < {UIDS.stop})"
    return {"expression": f"!has({name}) || {inside}", "message": f"{field}: must be in the ranges: [{UIDS.start}, …]"}


@pytest.fixture
def openshift(namespace: Namespace) -> Iterator[Namespace]:
    """Return a namespace that admits Pods as OpenShift's restricted-v2 does; it assigns no user, unlike that."""
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace.name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "validations": [in_uids("runAsUser"), in_uids("fsGroup")],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace.name},
        "spec": {
            "policyName": namespace.name,
            "validationActions": ["Deny"],
            "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
            },
        },
    }
    both = json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
    namespace.kubectl("apply", "-f", "-", stdin=both)
    yield namespace
    namespace.kubectl("delete", "-f", "-", stdin=both)


def test_admission_of_openshift(openshift: Namespace, pictures: Bucket) -> None:
    """The image's own user is refused where the namespace assigns users, and `watch` reports it; with nulls it runs."""
    namespace, values = openshift, CPU | pictures.values()
    refusal = "runAsUser: must be in the ranges"
    namespace.wait(
        lambda: refusal in namespace.kubectl("create", "-f", "-", "--dry-run=server", stdin=PROBE, check=False)
    )
    job = namespace.install(values)
    watching = namespace.watch(job)
    assert watching.stderr
    assert any("job.waiting" in line and refusal in line for line in watching.stderr)
    watching.terminate()
    watching.communicate()

    nobody: Object = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    job = namespace.install(values | {"command": "validate", "podSecurityContext": nobody}, release="image")
    # What OpenShift makes of it: a user that the image does not know, and so in the group of root.
    assigned = namespace.install(
        light(values) | {"podSecurityContext": nobody | {"runAsUser": UIDS.start}}, release="assigned"
    )

    assert ["Complete", "Complete"] == [namespace.finish(name) for name in (job, assigned)], namespace.describe()
    assert f"{pictures.only_run()}/_SUCCESS" in pictures.names()
