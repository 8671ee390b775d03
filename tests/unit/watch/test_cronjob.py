"""The Job that a plan creates: what is sent to the API server, and what its answers mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import api_server
import pytest

from job.errors import AccessError, FinetuneError, SettingsError, UnavailableError
from job.watch.cronjob import StartedJob, job_name, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api_server import ApiServer

RUN = "cats-0a1b2c3d4e"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Return a server with a CronJob."""
    with api_server.running() as running:
        yield running


def test_job_is_that_of_kubectl(server: ApiServer) -> None:
    """The Job has the template's spec, labels and annotations; the CronJob controls it, so that its limits apply."""
    started = start("finetune", RUN, connect=server.connect)

    assert StartedJob(name="finetune--cats-0a1b2c3d4e", created=True) == started
    job = server.jobs[started.name]
    template = api_server.CRONJOB["spec"]["jobTemplate"]
    assert ("batch/v1", "Job", template["spec"]) == (job["apiVersion"], job["kind"], job["spec"])
    assert {
        "name": started.name,
        "labels": {"team": "ml"},
        "annotations": {
            "cronjob.kubernetes.io/instantiate": "manual",
            "why": "nightly",
            "finetune/run-id": RUN,
        },
        "ownerReferences": [
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "name": "finetune",
                "uid": "cronjob-uid",
                "controller": True,
            }
        ],
    } == job["metadata"]


def test_job_that_exists(server: ApiServer) -> None:
    """The Job of a run is created once: it is under way, or was tried; another run has another Job."""
    first, second, other = (start("finetune", run, connect=server.connect) for run in (RUN, RUN, "cats-9"))

    assert [True, False, True] == [one.created for one in (first, second, other)]
    assert first.name == second.name
    assert [first.name, other.name] == list(server.jobs)


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("GET", 404, SettingsError),
        ("GET", 403, AccessError),
        ("GET", 503, UnavailableError),
        ("POST", 404, SettingsError),
        ("POST", 401, AccessError),
        ("POST", 403, AccessError),
        ("POST", 500, UnavailableError),
        ("POST", 400, SettingsError),
        ("POST", 422, SettingsError),
    ],
)
def test_refusals(server: ApiServer, method: str, status: int, expected: type[FinetuneError]) -> None:
    """Each refusal ends with the exit code of its cause: a permission, the API server itself, or what was sent."""
    server.refusals = {method: (status, "the reason")}

    with pytest.raises(expected) as caught:
        start("finetune", RUN, connect=server.connect)

    assert expected is type(caught.value)
    assert {} == server.jobs
    if status in (400, 401, 403, 422):
        assert "the reason" in caught.value.message


def test_api_server_that_is_away(server: ApiServer) -> None:
    """An API server that does not answer is exit code 20: the next Pod tries again."""
    api, namespace = server.connect()
    api.configuration.host = "http://127.0.0.1:1"

    with pytest.raises(UnavailableError, match="does not answer"):
        start("finetune", RUN, connect=lambda: (api, namespace))


def test_outside_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Pod's token there is nothing to create a Job with."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(SettingsError, match="no API server") as caught:
        start("finetune", RUN)
    assert "cronjob.plan" in caught.value.remedy


@pytest.mark.parametrize(
    ("cronjob", "run_id", "name"),
    [
        ("finetune", "cats-0a1b2c3d4e", "finetune--cats-0a1b2c3d4e"),
        ("2025", "7", "2025--7"),
        ("finetune", "Cats_v1.2", "finetune-cats-v1-2-"),
        ("finetune", "a--b", "finetune-a-b-"),
        ("a--b", "c", "a-b-c-"),
        ("f" * 50, "cats-0a1b2c3d4e", "f" * 50 + "-c-"),
        ("finetune", "X" * 100, "finetune-" + "x" * 43 + "-"),
    ],
)
def test_names(cronjob: str, run_id: str, name: str) -> None:
    """A Job is named by its run where that is a name; else the name ends in a hash, and is one for Kubernetes."""
    found = job_name(cronjob, run_id)

    assert found == name or re.fullmatch(re.escape(name) + "[0-9a-f]{10}", found)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", found)


@pytest.mark.parametrize(("workers", "length"), [(1, 63), (2, 61), (10, 61), (11, 60), (256, 59)])
def test_names_leave_room_for_the_index(workers: int, length: int) -> None:
    """The hostname of the last worker, JOB-INDEX, has at most 63 characters; one worker has no index."""
    for run_id in ("X" * 100, "x" * 100, "x" * (63 - len("finetune--"))):
        found = job_name("finetune", run_id, workers=workers)

        assert length == len(found)


def test_job_with_several_workers(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of workers is that of the CronJob's template."""
    spec = {"completionMode": "Indexed", "completions": 16, "parallelism": 16, "template": {}}
    monkeypatch.setitem(api_server.CRONJOB["spec"]["jobTemplate"], "spec", spec)

    started = start("finetune", "x" * 100, connect=server.connect)

    assert 60 == len(started.name)
    assert spec == server.jobs[started.name]["spec"]


def test_names_differ() -> None:
    """No two pairs of CronJob and run share a name, also where one begins with the other."""
    pairs = [("a", "b-c"), ("a-b", "c"), ("a", "b--c"), ("a--b", "c"), ("a", "B-c"), ("a", "b_c"), ("a", "b.c")]
    pairs += [("f" * 50, "cats-1"), ("f" * 50, "cats-2"), ("f" * 49, "cats-1"), ("f" * 49, "X" * 100)]

    assert len(pairs) == len({job_name(*pair) for pair in pairs})
