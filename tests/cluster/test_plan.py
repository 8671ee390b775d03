"""`cronjob.plan`: new pictures become a Job, and a night without any does not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from charts import CHART
from clusters import TINY, Bucket, Namespace, exit_codes, fill, light, new_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = {"cronjob": {"enabled": True, "schedule": "0 0 1 1 *", "plan": True}}


def event(line: dict[str, Any]) -> str:
    """Return the name of the event that a line of the log is of: its message, unless it has one of its own."""
    return str(line.get("event", line["message"]))


class Planned:
    """A release with a plan, which the tests of this file share.

    Args:
        namespace: where it is installed.
        bucket: its input and output.
    """

    def __init__(self, namespace: Namespace, bucket: Bucket) -> None:
        self.namespace = namespace
        self.bucket = bucket

    def jobs(self) -> set[str]:
        """Return the names of the Jobs of the CronJob with the GPU."""
        return {
            job["metadata"]["name"]
            for job in self.namespace.get("jobs")
            if [owner["name"] for owner in job["metadata"].get("ownerReferences", [])] == ["finetune"]
        }

    def plan(self, name: str) -> list[str]:
        """Start the plan now, and return the events in its log; its Job must complete."""
        self.namespace.kubectl("create", "job", name, "--from=cronjob/finetune-plan")
        assert "Complete" == self.namespace.finish(name), self.namespace.describe()
        [pod] = self.namespace.pods(name)
        assert [0] == exit_codes([pod])
        return [event(line) for line in self.namespace.log(pod["metadata"]["name"])]

    def watch(self, job: str) -> tuple[int, list[str]]:
        """Follow a Job to its end, and return the exit code and the events."""
        command = [sys.executable, "-m", "job", "watch", job, "--namespace", self.namespace.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
        return done.returncode, [event(json.loads(line)) for line in done.stderr.splitlines()]


@pytest.fixture(scope="module")
def planned(new_namespace: object, reachable_emulator: str) -> Iterator[Planned]:
    """Install a release with a plan, under `restricted`."""
    assert callable(new_namespace)
    namespace, bucket = new_namespace(), new_bucket(reachable_emulator)
    fill(bucket, images=20)
    values = light(TINY | bucket.values()) | PLAN | {"networkPolicy.enabled": True}
    values["networkPolicy.extraEgress"] = [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]  # the emulator, at any port
    namespace.helm("install", "finetune", CHART, *namespace.settings(**values))
    yield Planned(namespace, bucket)
    namespace.helm("uninstall", "finetune")


def test_the_account_may_create_jobs_and_get_one_cronjob(planned: Planned) -> None:
    """The plan's token can do nothing else; the training Pod's cannot create Jobs."""
    account = f"system:serviceaccount:{planned.namespace.name}:finetune"

    def rights(name: str) -> set[str]:
        return set(planned.namespace.kubectl("auth", "can-i", "--list", "--as", name).splitlines())

    more = rights(f"{account}-plan") - rights(account.replace(":finetune", ":default"))
    assert [
        ["cronjobs.batch", "[]", "[finetune]", "[get]"],
        ["jobs.batch", "[]", "[]", "[create]"],
    ] == sorted(line.split() for line in more)
    assert "no" == planned.namespace.kubectl("auth", "can-i", "create", "jobs", "--as", account, check=False).split()[0]


def test_new_pictures_are_trained(planned: Planned) -> None:
    """The plan creates the Job of the run, which trains; `finetune watch` follows it."""
    names = planned.plan("plan-1")

    assert "job.created" in names
    [job] = planned.jobs()
    run_id = planned.namespace.job(job)["metadata"]["annotations"]["finetune/run-id"]
    assert f"finetune--{run_id}" == job
    code, events = planned.watch(job)
    assert (0, True) == (code, "run.published" in events)
    code, events = planned.watch("plan-1")
    assert (0, True) == (code, "job.created" in events)
    assert f"models/runs/{run_id}" == planned.bucket.only_run()


def test_the_same_pictures_start_nothing(planned: Planned) -> None:
    """The next plan finds the run published: no Job, and so no GPU."""
    before, jobs = planned.bucket.names(), planned.jobs()

    names = planned.plan("plan-2")

    assert not {"job.created", "job.exists"} & set(names)
    assert "run.planned" in names
    assert jobs == planned.jobs()
    assert before == planned.bucket.names()


def test_a_job_that_exists_is_not_created_again(planned: Planned) -> None:
    """A run that is unfinished while its Job exists was tried: the plan reports the Job, and leaves it alone."""
    [job] = planned.jobs()
    uid = planned.namespace.job(job)["metadata"]["uid"]
    success = f"{planned.bucket.only_run()}/_SUCCESS"
    data = planned.bucket.read(success)
    planned.bucket.delete(success)

    names = planned.plan("plan-3")

    planned.bucket.write(success, data)
    assert "job.exists" in names
    assert ({job}, uid) == (planned.jobs(), planned.namespace.job(job)["metadata"]["uid"])


def test_more_pictures_are_another_run(planned: Planned) -> None:
    """Further pictures are work again, in a Job beside the first; the CronJob's history limit applies to both."""
    before = planned.jobs()
    fill(planned.bucket, images=24)

    assert "job.created" in planned.plan("plan-4")

    [job] = planned.jobs() - before
    assert "Complete" == planned.namespace.finish(job), planned.namespace.describe()
    found = planned.namespace.get("events", "--field-selector", "involvedObject.kind=CronJob,type=Warning")
    assert {"UnexpectedJob"} == {one["reason"] for one in found}
    assert 2 == len({name.split("/")[2] for name in planned.bucket.names("models/runs/")})
    patch = json.dumps({"spec": {"successfulJobsHistoryLimit": 1}})
    planned.namespace.kubectl("patch", "cronjob", "finetune", "--patch", patch)
    planned.namespace.wait(lambda: {job} == planned.jobs(), seconds=60)


def test_an_error_of_the_plan_is_no_success(planned: Planned) -> None:
    """A plan that may not create Jobs fails with 5 at once, and says which permission it needs."""
    fill(planned.bucket, images=28)
    planned.namespace.kubectl("delete", "rolebinding", "finetune-plan")

    planned.namespace.kubectl("create", "job", "plan-5", "--from=cronjob/finetune-plan")

    assert "Failed" == planned.namespace.finish("plan-5")
    pods = planned.namespace.pods("plan-5")
    assert [5] == exit_codes(pods)
    last = planned.namespace.log(pods[0]["metadata"]["name"])[-1]
    assert "cronjobs.batch" in last["message"]
