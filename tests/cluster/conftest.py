"""A cluster, the job's image on it, an emulator that its Pods reach, and a namespace for each test.

The cluster is that of KUBECONFIG, where the image of FINETUNE_TEST_IMAGE must be and Pods must reach this machine as
FINETUNE_TEST_HOST; or one that is started beside the project, and stopped at the end.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import uuid
from typing import TYPE_CHECKING

import containers
import pytest
from charts import Helm, helm_4
from clusters import HOST, Bucket, Namespace, fill, new_bucket
from paths import CLUSTER, SHARED
from started_once import started_once

from job.storage import emulator as emulators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Without a KUBECONFIG, and without ../shared to start a cluster, this tier is not collected.
collect_ignore_glob = [] if SHARED.is_dir() or "KUBECONFIG" in os.environ else ["test_*.py"]


GPUS = 8
"""That the node offers: more than the tests ask for that run at the same time."""


@pytest.fixture(scope="session")
def image(run_folder: Path) -> Iterator[str]:
    """Return the name of the job's CPU image; unless FINETUNE_TEST_IMAGE names one, it is this checkout's."""
    if os.environ.keys() & {"FINETUNE_TEST_IMAGE", "KUBECONFIG"}:
        yield os.environ.get("FINETUNE_TEST_IMAGE", containers.IMAGE)
        return
    with containers.image(run_folder):
        yield containers.IMAGE


@pytest.fixture(scope="session")
def cluster(image: str, run_folder: Path) -> Iterator[None]:
    """Have a cluster with the job's image, which kubectl and helm find. The processes of a test run share it."""
    if "KUBECONFIG" in os.environ:
        yield
        return
    if not CLUSTER.is_dir() or os.geteuid() != 0:
        pytest.skip("no KUBECONFIG, and no cluster can be started here: that takes root and ../shared/cluster")

    def start() -> str:
        was_up = subprocess.run(["pgrep", "-x", "kube-apiserver"], check=False, capture_output=True).returncode == 0
        up = _own("up", timeout=300)
        assert up.returncode == 0, up.stderr
        _load(image)
        variables = dict(re.findall(r"(KUBECONFIG|PATH)=(\S+)", up.stdout.replace(":$PATH", f":{os.environ['PATH']}")))
        return json.dumps({"variables": variables, "was_up": was_up})

    def stop(said: str) -> None:
        if not json.loads(said)["was_up"]:
            down = _own("down", timeout=120)
            assert down.returncode == 0, down.stderr

    with started_once(run_folder / "cluster", start, stop) as said, pytest.MonkeyPatch.context() as patch:
        for name, value in json.loads(said)["variables"].items():
            patch.setenv(name, value)
        yield


def _load(image: str) -> None:
    """Give the image to the cluster's node."""
    loaded = _own("load-image", image, timeout=600)
    if loaded.returncode and "FINETUNE_TEST_IMAGE" not in os.environ:
        # An engine that was killed can leave cached layers that run and cannot be saved.
        containers.build("--no-cache")
        loaded = _own("load-image", image, timeout=600)
    assert loaded.returncode == 0, loaded.stderr


def _own(command: str, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLUSTER / command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"CLUSTER_GPUS": str(GPUS)},
    )


@pytest.fixture(scope="session")
def new_namespace(cluster: None, image: str) -> Iterator[Callable[..., Namespace]]:  # noqa: ARG001  # it must be up
    """Return a function that makes a namespace; Pod Security `restricted` is enforced in it by default."""
    helm = helm_4()
    if helm is None:
        pytest.skip("no helm on the path, nor beside the project")
    made: list[Namespace] = []

    def make(level: str = "restricted") -> Namespace:
        namespace = Namespace(f"test-{uuid.uuid4().hex[:8]}", Helm(str(helm), 4), image)
        namespace.kubectl("create", "namespace", namespace.name)
        namespace.kubectl("label", "namespace", namespace.name, f"pod-security.kubernetes.io/enforce={level}")
        namespace.add_light()
        made.append(namespace)
        return namespace

    yield make
    for namespace in made:
        namespace.kubectl("delete", "namespace", namespace.name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def namespace(new_namespace: Callable[..., Namespace]) -> Iterator[Namespace]:
    """Return a namespace of the test's own, gone after it: what is left in it would slow the next test down."""
    made = new_namespace()
    yield made
    made.kubectl("delete", "jobs,cronjobs,pods", "--all", "--grace-period=1", "--wait=false")
    made.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture(scope="session")
def reachable_emulator() -> Iterator[str]:
    """Return the URL by which Pods reach an emulator on this machine; it is at the same port here."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    everywhere = "0.0.0.0"  # noqa: S104  # the Pods have addresses of their own
    command: list[str | Path] = [emulators.program(), "-backend", "memory", "-scheme", "http", "-log-level", "warn"]
    command += ["-host", everywhere, "-port", str(port)]
    command += ["-external-url", f"http://{HOST}:{port}", "-public-host", f"{HOST}:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert emulators._is_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://{HOST}:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def pictures(reachable_emulator: str) -> Bucket:
    """Return a bucket with 20 pictures of two classes under pictures/."""
    bucket = new_bucket(reachable_emulator)
    fill(bucket, images=20)
    return bucket
