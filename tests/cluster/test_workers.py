"""Two Pods that train one run: they find each other, and end in the same bits despite what happens to one of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts import CHART, ROOT
from clusters import TINY, Bucket, Namespace, exit_codes, fill, light, new_bucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.long

SLOW = TINY | {
    "workers": 2,
    "gpu.count": 0,
    "config.model.image_size": 96,
    "config.fine_tuning.epochs": 60,
    "config.fine_tuning.batch_size": 4,
    "config.fine_tuning.learning_rate": 0.0001,
    "config.keep": "last",  # the best epoch might lie before the disturbance
}
"""Values for a second stage in which one disturbance has its place."""

MEET = """
import os, socket, sys, time
count, index = int(os.environ["FINETUNE_WORKERS__COUNT"]), int(os.environ["FINETUNE_WORKERS__INDEX"])
addresses = os.environ["FINETUNE_WORKERS__ADDRESSES"].split(",")
assert count == len(addresses), addresses
hosts, ports = zip(*(address.split(":") for address in addresses))
assert hosts[index].split(".")[0] == socket.gethostname(), (hosts, socket.gethostname())
server = socket.create_server(("", int(ports[index])))
for host, port in zip(hosts, ports):
    while True:
        try:
            with socket.create_connection((host, int(port)), timeout=1):
                break
        except OSError:
            time.sleep(0.2)
print("met", *hosts, flush=True)
time.sleep(3)
"""
"""A program that ends when it has reached every worker at its address."""


FAIL = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print('{{"message": "worker.log", "severity": "INFO"}}', flush=True)
time.sleep(600 if os.environ["FINETUNE_WORKERS__INDEX"] == "0" else 5)
sys.exit({code})
"""
"""A program that ends in worker 1 with a code, and in worker 0 with SIGTERM."""


def running(job: dict[str, Any], program: str) -> dict[str, Any]:
    """Make a Job's container run a program of Python in place of the job."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    container |= {"command": ["python", "-c", program], "args": []}
    return job


@pytest.fixture(scope="module")
def undisturbed(new_namespace: Callable[..., Namespace], reachable_emulator: str) -> Bucket:
    """Return a bucket with pictures, and under models/ a run of two workers that nothing happened to."""
    bucket = new_bucket(reachable_emulator)
    fill(bucket, images=40)
    namespace = new_namespace()
    job = namespace.install(light(SLOW | bucket.values()))
    assert "Complete" == namespace.finish(job, seconds=300), namespace.describe()
    assert [0, 0] == exit_codes(namespace.pods(job))
    assert f"{bucket.only_run()}/_SUCCESS" in bucket.names()
    return bucket


def in_stage_2(namespace: Namespace, job: str) -> list[dict[str, Any]]:
    """Wait until worker 0 has finished two epochs of the second stage, and return the Pod of each worker."""
    namespace.wait_for_event(job, "epoch.finished", count=2, worker=0, seconds=240.0, stage="fine_tuning")
    return [namespace.pods(job, worker=index)[-1] for index in range(2)]


@pytest.mark.parametrize("cronjob", [False, True], ids=["job", "cronjob"])
def test_workers_reach_each_other(namespace: Namespace, cronjob: bool) -> None:
    """The Pods of a release's Job, and of each Job of its CronJob, reach each other and none of another Job."""
    values = SLOW | {"config.output.uri": "gs://b/models", "cronjob.enabled": cronjob, "events.enabled": False}
    rendered = namespace.helm("template", "finetune", CHART, "--no-hooks", *namespace.settings(**values))
    objects = [one for one in yaml.safe_load_all(rendered) if one]
    for one in objects:
        if one["kind"] == "CronJob":
            running(one["spec"]["jobTemplate"], MEET)
        elif one["kind"] == "Job":
            running(one, MEET)
    namespace.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    jobs = [one["metadata"]["name"] for one in objects if one["kind"] == "Job"] or ["first", "second"]
    if cronjob:
        for name in jobs:
            namespace.kubectl("create", "job", name, "--from=cronjob/finetune")

    for name in jobs:
        assert "Complete" == namespace.finish(name), namespace.describe()
        for pod in namespace.pods(name):
            said = namespace.kubectl("logs", pod["metadata"]["name"])
            assert f"met {name}-0.finetune-workers {name}-1.finetune-workers\n" == said


def test_watch_of_a_worker_that_fails(namespace: Namespace) -> None:
    """A worker without retries, or with a code that fails the Job, ends all workers, and `watch` as it ended itself."""
    values = SLOW | {"config.output.uri": "gs://b/models", "events.enabled": False}
    found = {}
    for release, code, retries in (("rule", 3, 10), ("limit", 20, 0)):
        rendered = namespace.helm(
            "template", release, CHART, "--no-hooks", *namespace.settings(**values, **{"job.backoffLimit": retries})
        )
        objects = [one for one in yaml.safe_load_all(rendered) if one]
        [job] = [running(one, FAIL.format(code=code)) for one in objects if one["kind"] == "Job"]
        namespace.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
        found[release] = namespace.watched(job["metadata"]["name"])

    for code, (exit_code, lines) in zip((3, 20), found.values(), strict=True):
        assert code == exit_code
        ends = {line["worker"]: line["exit_code"] for line in lines if line.get("event") == "pod.ended"}
        assert code == ends[1]
        assert ends.get(0) in (75, None)  # its Pod may be deleted before it is seen
        assert [line["message"] for line in lines].count("worker.log") <= 1


def test_the_api_server_takes_the_jobset_example(namespace: Namespace) -> None:
    """The Job that JobSet's controller makes of the example is valid, and warns of nothing under `restricted`."""
    jobset, policy = yaml.safe_load_all((ROOT / "examples/jobset/jobset.yaml").read_text())
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "flowers-workers-0"}, **replicated["template"]}
    runtime = yaml.safe_load((ROOT / "examples/trainjob/runtime.yaml").read_text())
    [node] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    counts = {"parallelism": 2, "completions": 2}
    trained = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "flowers-node-0"},
        "spec": node["template"]["spec"] | counts,
    }
    del policy["metadata"]["namespace"]

    said = namespace.kubectl(
        "create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all([job, trained, policy]), check=False
    )

    assert 3 == said.count("created (server dry run)"), said
    assert "Warning" not in said


def test_worker_1_is_killed(namespace: Namespace, undisturbed: Bucket, tmp_path: Path) -> None:
    """Worker 0 stays, waits for the new worker 1, and both resume to the same bits; one failure counts."""
    job = namespace.install(light(SLOW | undisturbed.values(output_prefix="killed")))
    before = in_stage_2(namespace, job)

    namespace.kill(before[1]["metadata"]["name"])

    assert "Complete" == namespace.finish(job, seconds=300), namespace.describe()
    assert [0] == exit_codes(namespace.pods(job, worker=0))
    assert before[0]["metadata"]["uid"] == namespace.pods(job, worker=0)[-1]["metadata"]["uid"]
    assert [137, 0] == exit_codes(namespace.pods(job, worker=1))
    assert 1 == namespace.job(job)["status"]["failed"]
    assert undisturbed.model_sha256("models", tmp_path) == undisturbed.model_sha256("killed", tmp_path)


def test_worker_0_is_evicted(namespace: Namespace, undisturbed: Bucket, tmp_path: Path) -> None:
    """An eviction does not count; the next worker 0 resumes the run, in which worker 1 has stayed."""
    job = namespace.install(light(SLOW | undisturbed.values(output_prefix="evicted")))
    before = in_stage_2(namespace, job)

    namespace.evict(before[0]["metadata"]["name"])

    namespace.wait_for_event(job, "run.started", worker=0, seconds=240.0, after=before, resumed=True)
    assert "Complete" == namespace.finish(job, seconds=300), namespace.describe()
    assert before[1]["metadata"]["uid"] == namespace.pods(job, worker=1)[-1]["metadata"]["uid"]
    assert 0 == namespace.job(job)["status"].get("failed", 0)
    assert undisturbed.model_sha256("models", tmp_path) == undisturbed.model_sha256("evicted", tmp_path)


def test_suspended_by_a_queue(namespace: Namespace, undisturbed: Bucket, tmp_path: Path) -> None:
    """Kueue may suspend both workers and start them again; nothing counts as a failure."""
    job = namespace.install(light(SLOW | undisturbed.values(output_prefix="queued")) | {"kueue.queueName": "gpus"})
    before = in_stage_2(namespace, job)

    namespace.suspend(job, value=True)
    namespace.wait(lambda: not namespace.job(job)["status"].get("active"))
    namespace.suspend(job, value=False)

    namespace.wait_for_event(job, "run.started", worker=0, seconds=240.0, after=before, resumed=True)
    assert "Complete" == namespace.finish(job, seconds=300), namespace.describe()
    assert 0 == namespace.job(job)["status"].get("failed", 0)
    assert undisturbed.model_sha256("models", tmp_path) == undisturbed.model_sha256("queued", tmp_path)


def test_two_runs_side_by_side(namespace: Namespace, undisturbed: Bucket, tmp_path: Path) -> None:
    """Two releases with two workers each train two runs in one namespace, and neither meets the other's workers."""
    values = light(SLOW | undisturbed.values(output_prefix="first"))
    other = light(SLOW | undisturbed.values(output_prefix="second")) | {"config.run.seed": 8}
    jobs = [namespace.install(values, release="first"), namespace.install(other, release="second")]
    for job in jobs:
        namespace.wait_for_event(job, "run.started", worker=0, seconds=240.0)

    assert ["Complete", "Complete"] == [namespace.finish(job, seconds=400) for job in jobs], namespace.describe()

    assert undisturbed.model_sha256("models", tmp_path) == undisturbed.model_sha256("first", tmp_path)
    runs = [json.loads(undisturbed.read(f"{prefix}/latest.json"))["run_id"] for prefix in ("first", "second")]
    assert runs[0] != runs[1]
    assert {0} == {code for job in jobs for code in exit_codes(namespace.pods(job))}


def test_watch(namespace: Namespace, undisturbed: Bucket) -> None:
    """`finetune watch` follows worker 0, and reports the end of both."""
    job = namespace.install(
        light(SLOW | {"config.fine_tuning.epochs": 1} | undisturbed.values(output_prefix="watched"))
    )

    code, lines = namespace.watched(job)

    names = [line.get("event", line["message"]) for line in lines]
    assert (0, "job.completed") == (code, names[-1])
    assert 1 == names.count("run.succeeded")
    assert {0, 1} == {line["worker"] for line in lines if line.get("event") == "pod.ended"}
