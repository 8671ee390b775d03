"""Pods that are evicted, killed, suspended or deleted in mid-training: the next one ends in the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from charts import CHART
from clusters import TINY, Bucket, Namespace, fill, light, new_bucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SLOW = TINY | {
    "config.model.image_size": 96,
    "config.fine_tuning.epochs": 60,
    "config.fine_tuning.batch_size": 4,
    "config.fine_tuning.learning_rate": 0.0001,
    "config.keep": "last",  # the best epoch might lie before the disturbance
}
"""Values for a second stage of 10 to 30 s: one disturbance of a Pod fits into it, and nothing slow before that."""


@pytest.fixture(scope="module")
def undisturbed(new_namespace: Callable[..., Namespace], reachable_emulator: str) -> Bucket:
    """Return a bucket with pictures, and under models/ a run that nothing happened to."""
    bucket = new_bucket(reachable_emulator)
    fill(bucket, images=40)
    namespace = new_namespace()
    job = namespace.install(light(SLOW | bucket.values()))
    assert "Complete" == namespace.finish(job), namespace.describe()
    return bucket


def in_stage_2(namespace: Namespace, job: str, after: list[dict[str, object]]) -> dict[str, dict[str, str]]:
    """Wait until the Job's newest Pod has finished two epochs of the second stage, and return it."""
    return namespace.wait_for_event(job, "epoch.finished", count=2, after=after, stage="fine_tuning")


def test_upgrade_under_a_job_of_the_cronjob(namespace: Namespace, undisturbed: Bucket) -> None:
    """A Job that a CronJob made keeps its settings: after an upgrade to other ones, its next Pod resumes the run."""
    values = light(SLOW | undisturbed.values(output_prefix="scheduled")) | {"cronjob.enabled": True}
    namespace.helm("install", "finetune", CHART, *namespace.settings(**values))
    namespace.kubectl("create", "job", "nightly", "--from=cronjob/finetune")
    namespace.wait_for_event("nightly", "run.started")

    namespace.helm("upgrade", "finetune", CHART, *namespace.settings(**values | {"config.run.seed": 8}))
    pods = [in_stage_2(namespace, "nightly", [])]
    namespace.evict(pods[-1]["metadata"]["name"])

    namespace.wait_for_event("nightly", "run.started", after=pods, resumed=True)
    assert "Complete" == namespace.finish("nightly"), namespace.describe()


def test_evicted_killed_and_deleted(namespace: Namespace, undisturbed: Bucket, tmp_path: Path) -> None:
    """An eviction does not count, a kill does; after both, and in a new Job, the run resumes to the same bits."""
    values = light(SLOW | undisturbed.values(output_prefix="disturbed"))
    job = namespace.install(values)
    pods = [in_stage_2(namespace, job, [])]

    namespace.evict(pods[-1]["metadata"]["name"])
    pods.append(namespace.wait_for_event(job, "run.started", after=pods, resumed=True))
    assert 0 == namespace.job(job)["status"].get("failed", 0)
    namespace.wait(lambda: ("Normal", "Resumed") in namespace.events("Job"))

    in_stage_2(namespace, job, pods[:1])
    namespace.kill(pods[-1]["metadata"]["name"])
    pods.append(namespace.wait_for_event(job, "run.started", after=pods, resumed=True))
    assert 1 == namespace.job(job)["status"]["failed"]

    in_stage_2(namespace, job, pods[:2])
    namespace.helm("uninstall", "finetune", "--wait", "--cascade=foreground")
    namespace.wait(lambda: not namespace.get("jobs"))  # helm may stop waiting before; the new Job has the same name
    again = namespace.install(values)
    namespace.wait_for_event(again, "run.started", resumed=True)
    assert "Complete" == namespace.finish(again), namespace.describe()

    assert undisturbed.model_sha256("models", tmp_path) == undisturbed.model_sha256("disturbed", tmp_path)
    assert [] == [name for name in undisturbed.names("disturbed/runs/") if "/checkpoints/" in name]


def test_suspended_by_a_queue(namespace: Namespace, undisturbed: Bucket, tmp_path: Path) -> None:
    """A queue may suspend and start the Job at will, and upgrade never touches that; nothing counts as a failure."""
    values = light(SLOW | undisturbed.values(output_prefix="queued")) | {"kueue.queueName": "gpus"}
    job = namespace.install(values)
    namespace.suspend(job, value=True)
    namespace.suspend(job, value=False)
    pod = namespace.wait_for_event(job, "run.started")

    assert job == namespace.install(values, command="upgrade")
    assert namespace.job(job)["spec"]["suspend"] is False
    assert pod["metadata"]["uid"] == namespace.pods(job)[-1]["metadata"]["uid"]

    before = [in_stage_2(namespace, job, [])]
    namespace.suspend(job, value=True)
    namespace.wait(lambda: not namespace.job(job)["status"].get("active"))
    namespace.suspend(job, value=False)
    namespace.wait_for_event(job, "run.started", after=before, resumed=True)
    assert "Complete" == namespace.finish(job), namespace.describe()
    assert 0 == namespace.job(job)["status"].get("failed", 0)
    assert undisturbed.model_sha256("models", tmp_path) == undisturbed.model_sha256("queued", tmp_path)
