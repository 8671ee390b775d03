"""What `finetune watch` makes of the API server's answers."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

import pytest
from kubernetes.client import ApiException

from job.errors import AccessError, FinetuneError, UnavailableError
from job.watch.api_reader import Cluster
from job.watch.pods import job_container

if TYPE_CHECKING:
    from pathlib import Path


def answer(status: int) -> object:
    """Return what a reader makes of an answer with a status."""

    def refuse(**_: object) -> NoReturn:
        raise ApiException(status=status, reason="reason")

    return object.__new__(Cluster)._get(refuse)  # without a kubeconfig


def test_absent_object_is_none() -> None:
    """An object that does not exist is no error."""
    assert answer(404) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AccessError),
        (403, AccessError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
        (0, UnavailableError),
        (400, ApiException),
    ],
)
def test_refusals(status: int, expected: type[FinetuneError | ApiException]) -> None:
    """Missing permission and a busy server each have their error; any other refusal is a bug, and raised as it is."""
    with pytest.raises(expected):
        answer(status)


def test_containers_that_were_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sidecar that a webhook has put first is not taken for the container of the job."""
    names = [{"name": "istio-proxy"}, {"name": "flowers"}]
    pod = {"metadata": {"name": "p", "creationTimestamp": "t"}, "spec": {"containers": names}}
    job = {"metadata": {"uid": "u"}, "spec": {"template": {"spec": {"containers": [{"name": "flowers"}]}}}}
    cluster = object.__new__(Cluster)
    monkeypatch.setattr(cluster, "_core", SimpleNamespace(list_namespaced_pod=None), raising=False)
    monkeypatch.setattr(cluster, "namespace", "ml", raising=False)
    monkeypatch.setattr(cluster, "_get", lambda *_, **__: {"items": [pod]})

    [found] = cluster.pods(job)

    assert "flowers" == job_container(found["spec"])


def test_no_cluster(tmp_path: Path) -> None:
    """Without a kubeconfig it exits with 2, naming the variable."""
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "job", "watch", "flowers"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert 2 == done.returncode
    assert "KUBECONFIG" in done.stderr
    assert "run.failed" not in done.stderr
