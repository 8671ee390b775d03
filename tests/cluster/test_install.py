"""Installing the chart in a namespace that is restricted and has a quota, from the first Pod to the last object."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from clusters import TINY, Bucket, Namespace, exit_codes, fill, new_bucket

if TYPE_CHECKING:
    from collections.abc import Callable

QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: all}
spec:
  hard:
    requests.cpu: "4"
    requests.memory: 12Gi
    requests.ephemeral-storage: 50Gi
    limits.cpu: "16"
    limits.memory: 32Gi
    limits.ephemeral-storage: 100Gi
"""


class Installed(NamedTuple):
    """A release whose Job is complete."""

    namespace: Namespace
    bucket: Bucket
    job: str


@pytest.fixture(scope="module")
def installed(new_namespace: Callable[..., Namespace], reachable_emulator: str) -> Installed:
    """Install the chart from and to a bucket, in a restricted namespace with a quota, and wait for its end."""
    bucket = new_bucket(reachable_emulator)
    fill(bucket, images=20)
    namespace = new_namespace()
    namespace.kubectl("apply", "-f", "-", stdin=QUOTA)
    job = namespace.install(TINY | bucket.values())
    assert "Complete" == namespace.finish(job), namespace.describe()
    return Installed(namespace, bucket, job)


def test_default_install(namespace: Namespace) -> None:
    """With no input and output it trains the demo pictures, on a Pod that got one GPU, and completes."""
    # All but the number of epochs is the default: ten of the second stage take minutes on two cores.
    job = namespace.install({"config.device.require_gpu": False, "config.fine_tuning.epochs": 1})

    assert "Complete" == namespace.finish(job, seconds=300), namespace.describe()
    [pod] = namespace.pods(job)
    assert "1" == pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]


def test_from_bucket_to_bucket(installed: Installed) -> None:
    """The run is published completely, and recorded under the UID of the Job."""
    run = installed.bucket.only_run()
    uid = installed.namespace.job(installed.job)["metadata"]["uid"]

    assert f"{run}/_SUCCESS" in installed.bucket.names()
    assert run.endswith(json.loads(installed.bucket.read("models/latest.json"))["run_id"])
    assert f"models/jobs/{uid}.json" in installed.bucket.names()
    assert [0] == exit_codes(installed.namespace.pods(installed.job))


@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_events_of_the_job(installed: Installed, kind: str) -> None:
    """`kubectl describe` of Job and Pod shows what the run did, from its start over both stages to its end."""
    expected = ["Started", "StageStarted", "StageFinished", "StageStarted", "StageFinished", "Published", "Succeeded"]

    assert [("Normal", reason) for reason in expected] == installed.namespace.events(kind)


def test_nothing_was_refused_for_want_of_limits(installed: Installed) -> None:
    """Under a ResourceQuota no Pod was rejected."""
    warnings = installed.namespace.get("events", "--field-selector", "type=Warning")

    assert [] == [one["message"] for one in warnings if one["reason"] == "FailedCreate"]


def test_helm_test(installed: Installed) -> None:
    """`helm test` is `finetune doctor` with the job's identity and settings, under restriction and quota."""
    before = installed.bucket.names()

    said = installed.namespace.helm("test", "finetune", "--logs", "--timeout=90s")

    assert "Succeeded" in said
    found = re.findall(r"^(ok|warning) +(input|output create|output delete|weights) ", said, re.MULTILINE)
    assert [("ok", "input"), ("ok", "output create"), ("ok", "output delete"), ("warning", "weights")] == found
    assert before == installed.bucket.names()


@pytest.mark.parametrize(
    ("command", "settings", "said"),
    [
        ("validate", {}, "a run can train on these data"),
        ("doctor", {"config.device.require_gpu": False}, "output delete"),
    ],
)
def test_commands_that_only_look(
    namespace: Namespace, reachable_emulator: str, command: str, settings: dict[str, object], said: str
) -> None:
    """`command: validate` and `command: doctor` end with their verdict in the Pod's log, and leave the bucket alone."""
    bucket = new_bucket(reachable_emulator)
    fill(bucket, images=20)
    before = bucket.names()

    job = namespace.install(TINY | bucket.values() | settings | {"command": command})

    assert "Complete" == namespace.finish(job), namespace.describe()
    [pod] = namespace.pods(job)
    gpus = pod["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
    assert (None if command == "validate" else "1") == gpus
    assert said in namespace.kubectl("logs", pod["metadata"]["name"], "--container", "finetune")
    assert before == bucket.names()


def test_the_account_may_create_events_and_nothing_else(installed: Installed) -> None:
    """The Pod's token can create Events, and read or change nothing."""
    account = f"system:serviceaccount:{installed.namespace.name}:finetune"
    said = installed.namespace.kubectl("auth", "can-i", "--list", "--as", account)
    nobody = installed.namespace.kubectl("auth", "can-i", "--list", "--as", account.replace("finetune", "default"))

    more = set(said.splitlines()) - set(nobody.splitlines())
    assert [["events", "[]", "[]", "[create]"]] == [line.split() for line in more]


def test_a_second_release_finds_the_run_published(installed: Installed) -> None:
    """Two releases can be installed; with the same settings and pictures the second trains nothing."""
    before = installed.bucket.read(f"{installed.bucket.only_run()}/manifest.json")

    job = installed.namespace.install(TINY | installed.bucket.values(), release="again")

    assert "Complete" == installed.namespace.finish(job), installed.namespace.describe()
    [pod] = installed.namespace.pods(job)
    assert "stage.started" not in [line["message"] for line in installed.namespace.log(pod["metadata"]["name"])]
    assert before == installed.bucket.read(f"{installed.bucket.only_run()}/manifest.json")
    assert "Complete" == installed.namespace.finish(installed.job)
    installed.namespace.helm("uninstall", "again", "--wait")


def test_watch_of_a_finished_job(installed: Installed) -> None:
    """`finetune watch JOB` reports a Job that has ended, and exits with its code."""
    code, lines = installed.namespace.watched(installed.job)

    names = [line.get("event", line["message"]) for line in lines]
    assert 0 == code
    assert ["run.published", "run.evaluated", "run.succeeded", "pod.ended", "job.completed"] == names[-5:]
    assert 2 == names.count("epoch.finished")


def test_upgrade_rollback_uninstall(installed: Installed) -> None:
    """An upgrade with other values creates another Job, one without keeps it; all of them keep the bucket."""
    namespace, values = installed.namespace, TINY | installed.bucket.values()
    uid = namespace.job(installed.job)["metadata"]["uid"]

    same = namespace.install(values, command="upgrade")
    assert (installed.job, uid) == (same, namespace.job(same)["metadata"]["uid"])

    other = namespace.install(values | {"config.run.seed": 8}, command="upgrade")
    namespace.wait(lambda: [other] == [job["metadata"]["name"] for job in namespace.get("jobs")])
    assert "Complete" == namespace.finish(other), namespace.describe()
    assert 2 == len({name.split("/")[2] for name in installed.bucket.names("models/runs/")})

    namespace.helm("rollback", "finetune", "1")
    namespace.wait(lambda: [installed.job] == [job["metadata"]["name"] for job in namespace.get("jobs")])
    assert uid != namespace.job(installed.job)["metadata"]["uid"]
    assert "Complete" == namespace.finish(installed.job), namespace.describe()

    before = installed.bucket.names()
    namespace.helm("uninstall", "finetune", "--wait")
    assert before == installed.bucket.names()
    assert [] == namespace.get("jobs,roles,rolebindings", "--selector", "app.kubernetes.io/instance=finetune")
