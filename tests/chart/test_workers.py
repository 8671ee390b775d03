"""What helm makes of `workers`: an Indexed Job whose Pods find each other, and nothing else where there is one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from charts import CHART, Rendered

if TYPE_CHECKING:
    from charts import Helm

BUCKET = ("config.input.uri=gs://b/pictures", "config.output.uri=gs://b/models")
THREE = ("workers=3", *BUCKET)
PORT = 2222


def environment(found: Rendered) -> dict[str, Any]:
    """Return name -> value, or its source, of the variables of the job's container."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in found.container["env"]}


def policy_ports(found: Rendered, direction: str) -> list[dict[str, Any]]:
    """Return the ports that the workers' policy opens in a direction, all of it from or to the workers alone."""
    spec = found.objects["workers/NetworkPolicy"]["spec"]
    [rule] = spec[direction]
    [peer] = rule["from" if direction == "ingress" else "to"]
    assert {"podSelector": spec["podSelector"]} == peer
    return list(rule["ports"])


@pytest.mark.parametrize("setting", ["workers=1", "workers=null"])
def test_one_worker_changes_nothing(helm: Helm, setting: str) -> None:
    """With one worker the chart renders what it does without the value, up to the last byte."""
    found = helm.render(setting)

    assert helm.render().text == found.text
    assert not re.search("workers|WORKERS|Indexed|subdomain", found.text)


def test_indexed_job(helm: Helm) -> None:
    """Each worker is an index with retries of its own; the Job ends when one of them has none left."""
    spec = helm.render(*THREE, "job.backoffLimit=4").job["spec"]

    assert {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "backoffLimit": 12,
        "backoffLimitPerIndex": 4,
        "maxFailedIndexes": 0,
    } == {name: spec[name] for name in spec if name not in ("podFailurePolicy", "podReplacementPolicy", "template")}
    assert helm.render().job["spec"]["podFailurePolicy"] == spec["podFailurePolicy"]
    assert "Failed" == spec["podReplacementPolicy"]
    default = helm.render(*THREE).job["spec"]
    assert (30, 10) == (default["backoffLimit"], default["backoffLimitPerIndex"])


@pytest.mark.parametrize("cronjob", ["false", "true"])
def test_workers_know_each_other(helm: Helm, cronjob: str) -> None:
    """Count, index and addresses are variables; the addresses follow from the Job's name, which only the Pod knows."""
    found = helm.render(*THREE, f"cronjob.enabled={cronjob}")
    env, names = environment(found), [one["name"] for one in found.container["env"]]
    service = found.objects["workers/Service"]["metadata"]["name"]

    assert "3" == env["FINETUNE_WORKERS__COUNT"]
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert {"fieldRef": {"fieldPath": index}} == env["FINETUNE_WORKERS__INDEX"]
    addresses = [f"$(FINETUNE_RUN__JOB_NAME)-{index}.{service}:{PORT}" for index in range(3)]
    assert addresses == env["FINETUNE_WORKERS__ADDRESSES"].split(",")
    assert names.index("FINETUNE_RUN__JOB_NAME") < names.index("FINETUNE_WORKERS__ADDRESSES")
    assert service == found.pod["subdomain"]
    assert [PORT] == [port["containerPort"] for port in found.container["ports"]]


def test_service(helm: Helm) -> None:
    """The Service gives each Pod of the job a name, also one that is not ready, and none to those of test and plan."""
    found = helm.render(*THREE, "cronjob.enabled=true", "cronjob.schedule=@daily", "cronjob.plan=true")
    spec = found.objects["workers/Service"]["spec"]

    assert ("None", True, [PORT]) == (
        spec["clusterIP"], spec["publishNotReadyAddresses"], [port["port"] for port in spec["ports"]]
    )  # fmt: skip
    plan = found.objects["plan/CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    selected = [
        spec["selector"].items() <= one["metadata"]["labels"].items()
        for one in (found.job["spec"]["template"], plan, found.objects["test"])
    ]
    assert [True, False, False] == selected


def test_two_releases_do_not_meet(helm: Helm) -> None:
    """Two releases share neither Service nor selector nor addresses."""
    flags = [part for setting in THREE for part in ("--set", setting)]
    one, two = (Rendered(helm.run("template", name, CHART, *flags).stdout) for name in ("one", "two"))

    for get in (
        lambda found: found.objects["workers/Service"]["metadata"]["name"],
        lambda found: found.objects["workers/Service"]["spec"]["selector"],
        lambda found: found.objects["workers/NetworkPolicy"]["spec"]["podSelector"],
        lambda found: environment(found)["FINETUNE_WORKERS__ADDRESSES"],
    ):
        assert get(one) != get(two)


@pytest.mark.parametrize(("gpus", "ports"), [(0, [{"port": PORT, "protocol": "TCP"}]), (1, [{"protocol": "TCP"}])])
def test_network_policy(helm: Helm, gpus: int, ports: list[dict[str, Any]]) -> None:
    """Only a worker can connect to a worker: at one port, or at any where NCCL chooses it; DNS and stores as before."""
    found = helm.render(*THREE, f"gpu.count={gpus}")
    strict = helm.render(*THREE, f"gpu.count={gpus}", "networkPolicy.enabled=true")
    alone = helm.render(*BUCKET, f"gpu.count={gpus}", "networkPolicy.enabled=true")

    assert ports == policy_ports(found, "ingress") == policy_ports(strict, "ingress") == policy_ports(strict, "egress")
    assert ["Ingress"] == found.objects["workers/NetworkPolicy"]["spec"]["policyTypes"]
    assert ["Ingress", "Egress"] == strict.objects["workers/NetworkPolicy"]["spec"]["policyTypes"]
    assert "NetworkPolicy" not in found.objects
    assert alone.objects["NetworkPolicy"] == strict.objects["NetworkPolicy"]


@pytest.mark.parametrize("name", ["a" * 63, "2025-a", "2a" * 31, "a-"])
def test_names_fit(helm: Helm, name: str) -> None:
    """The Service has a name of RFC 1035, and the hostname of the last of 256 workers at most 63 characters."""
    found = helm.render(f"fullnameOverride={name}", "workers=256", *BUCKET)
    service = found.objects["workers/Service"]["metadata"]["name"]

    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", service)
    assert service == found.pod["subdomain"]
    assert len(f"{found.job['metadata']['name']}-255") <= 63
    variables = environment(found)["FINETUNE_WORKERS__ADDRESSES"].replace("$(FINETUNE_RUN__JOB_NAME)", "n" * 59)
    assert len(variables) < 2**17  # the kernel's limit of a variable


@pytest.mark.parametrize(
    ("settings", "another"),
    [
        (("workers=4",), True),
        (("job.backoffLimit=5",), True),  # backoffLimitPerIndex is immutable
        (("networkPolicy.enabled=true",), False),
    ],
)
def test_another_template_is_another_job(helm: Helm, settings: tuple[str, ...], another: bool) -> None:
    """The Job's name changes with what is immutable in an Indexed Job."""
    before, after = (helm.render(*THREE, *more).job["metadata"]["name"] for more in ((), settings))

    assert another == (before != after)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (("config.output.uri=null",), ("workers=3", "config.output.uri")),
        (("command=validate",), ("workers=3", "command=validate")),
        (("command=doctor",), ("workers=3", "command=doctor")),
        (("cache.type=existingClaim", "cache.existingClaim=pvc"), ("workers=3", "cache.type")),
        (("podSpec.hostname=x",), ("workers=3", "podSpec.hostname")),
        (("podSpec.subdomain=x",), ("podSpec.subdomain",)),
        (
            (
                "config.cache.dir=/data/cache",
                "extraVolumeMounts[0].name=d",
                "extraVolumeMounts[0].mountPath=/data",
                "extraVolumes[0].name=d",
                "extraVolumes[0].persistentVolumeClaim.claimName=shared",
            ),
            ("workers=3", "config.cache.dir=/data/cache", "cache.sizeLimit"),
        ),
    ],
)
def test_mistakes(helm: Helm, settings: tuple[str, ...], keys: tuple[str, ...]) -> None:
    """What several Pods of a run cannot share, and what they must, is named with its key."""
    given = [one for one in THREE if not settings[0].startswith(one.partition("=")[0])]
    message = helm.refusal("config.input.uri=null", *given[:1], *given[2:], *settings)

    assert [] == [key for key in keys if key not in message]


def test_caches_of_their_own(helm: Helm) -> None:
    """An ephemeral volume, and an emptyDir at a path of the user's, are those of one Pod, and so are taken."""
    found = helm.render(*THREE, "cache.type=ephemeral", "cronjob.enabled=true")
    own = helm.render(
        *THREE,
        "config.cache.dir=/data/cache",
        'extraVolumes=[{"name": "d", "emptyDir": {}}]',
        'extraVolumeMounts=[{"name": "d", "mountPath": "/data"}]',
    )

    assert [True] == ["ephemeral" in volume for volume in found.pod["volumes"] if volume["name"] == "cache"]
    assert "/data/cache" == own.config["cache"]["dir"]


def test_queue(helm: Helm) -> None:
    """Kueue admits the Pods of a Job together; the chart never sets spec.suspend."""
    found = helm.render(*THREE, "kueue.queueName=gpus")

    assert "gpus" == found.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert "suspend" not in found.job["spec"]


@pytest.mark.newest_helm  # Helm 3 asks a cluster before it shows the notes, dry run or not
@pytest.mark.parametrize(
    ("settings", "said", "unsaid"),
    [
        (("gpu.count=2",), ("workers=3", "6 GPUs in all", "job-completion-index=0", "kueue.queueName"), ()),
        (("gpu.count=0", "kueue.queueName=q"), ("3 Pods train one run;",), ("GPUs in all", "kueue.queueName")),
    ],
)
def test_notes(helm: Helm, settings: tuple[str, ...], said: tuple[str, ...], unsaid: tuple[str, ...]) -> None:
    """The notes name the number of Pods and GPUs, whose log to read, and what waits for what without a queue."""
    arguments = [part for setting in (*THREE, *settings) for part in ("--set", setting)]
    done = helm.run("install", "finetune", CHART, "--dry-run=client", *arguments)
    notes = done.stdout.partition("NOTES:")[2]

    assert [] == [text for text in said if text not in notes]
    assert [] == [text for text in unsaid if text in notes]


def test_alert_on_failed_pods(helm: Helm) -> None:
    """One outage fails a Pod of each worker: the number that alerts is for each."""
    text = helm.render(*THREE, "alerts.enabled=true").text

    assert ">= 15" in text
    assert ">= 5" in helm.render(*BUCKET, "alerts.enabled=true").text
