"""Two Pods that train one run: they find each other, and the API server takes what they are rendered in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from charts import CHART, ROOT
from clusters import TINY, Namespace

TWO = TINY | {
    "workers": 2,
    "gpu.count": 0,  # the node has two, and two runs side by side would need four
}
"""Values for a run of two Pods."""

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


@pytest.mark.parametrize("cronjob", [False, True], ids=["job", "cronjob"])
def test_workers_reach_each_other(namespace: Namespace, cronjob: bool) -> None:
    """The Pods of a release's Job, and of each Job of its CronJob, reach each other and none of another Job."""
    values = TWO | {"config.output.uri": "gs://b/models", "cronjob.enabled": cronjob, "events.enabled": False}
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
    values = TWO | {"config.output.uri": "gs://b/models", "events.enabled": False}
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
