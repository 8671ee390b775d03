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


def meeting(job: dict[str, Any]) -> dict[str, Any]:
    """Make a Job's container run MEET in place of the job."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    container |= {"command": ["python", "-c", MEET], "args": []}
    return job


@pytest.mark.parametrize("cronjob", [False, True], ids=["job", "cronjob"])
def test_workers_reach_each_other(namespace: Namespace, cronjob: bool) -> None:
    """The Pods of a release's Job, and of each Job of its CronJob, reach each other and none of another Job."""
    values = TWO | {"config.output.uri": "gs://b/models", "cronjob.enabled": cronjob, "events.enabled": False}
    rendered = namespace.helm("template", "finetune", CHART, "--no-hooks", *namespace.settings(**values))
    objects = [one for one in yaml.safe_load_all(rendered) if one]
    for one in objects:
        if one["kind"] == "CronJob":
            meeting(one["spec"]["jobTemplate"])
        elif one["kind"] == "Job":
            meeting(one)
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
