"""Every way to start a run, and what others do to a Job: by hand, by manifest, by a queue, beside a sidecar."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts import CHART, ROOT
from clusters import TINY, Bucket, Namespace, exit_codes, light

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

K8S = ROOT / "k8s"


def test_cronjob_by_hand(namespace: Namespace, pictures: Bucket) -> None:
    """`kubectl create job --from=cronjob/…` starts a run; a second one without new pictures ends without training."""
    namespace.helm(
        "install",
        "finetune",
        CHART,
        *namespace.settings(**light(TINY | pictures.values()), **{"cronjob.enabled": True}),
    )
    assert [] == namespace.get("jobs")

    for name in ("first", "second"):
        namespace.kubectl("create", "job", name, "--from=cronjob/finetune")
        assert "Complete" == namespace.finish(name), namespace.describe()

    [pod] = namespace.pods("second")
    assert "stage.started" not in [line["message"] for line in namespace.log(pod["metadata"]["name"])]
    assert pictures.only_run()
    assert ("Normal", "Published") in namespace.events("Job")


def test_job_by_hand(new_namespace: Callable[..., Namespace], pictures: Bucket) -> None:
    """`kubectl create job --image=… -- finetune run …` needs no chart, and `finetune watch` follows it."""
    namespace = new_namespace("baseline")  # kubectl writes no security context
    manifest = namespace.kubectl(
        "create", "job", "plain", f"--image={namespace.image}", "--dry-run=client", "--output=yaml", "--",
        *("finetune", "run", "--input.uri", pictures.uri("pictures"), "--output.uri", pictures.uri("models")),
        *("--model.weights", "none", "--model.alpha", "0.35", "--model.image_size", "32"),
        *("--feature_extraction.epochs", "1", "--fine_tuning.epochs", "1", "--export.verify_images", "8"),
    )  # fmt: skip
    job = yaml.safe_load(manifest)
    # For the emulator and this cluster alone: the bucket of a real cluster needs no variable, its image is pulled.
    [container] = job["spec"]["template"]["spec"]["containers"]
    container |= {"env": pictures.values()["extraEnv"], "imagePullPolicy": "Never"}

    namespace.kubectl("create", "-f", "-", stdin=yaml.safe_dump(job))

    code, lines = namespace.watched("plain")
    names = [line.get("event", line["message"]) for line in lines]
    assert (0, "job.completed") == (code, names[-1]), namespace.describe()
    assert {"pod.running", "run.started", "run.succeeded", "pod.ended"} <= set(names)
    assert f"{pictures.only_run()}/_SUCCESS" in pictures.names()


def test_plain_manifests(namespace: Namespace, pictures: Bucket, tmp_path: Path) -> None:
    """`kubectl apply -k k8s/` gives a CronJob to start by hand, restricted, with Events."""
    shutil.copytree(K8S, tmp_path / "k8s")
    kustomization = yaml.safe_load((K8S / "kustomization.yaml").read_text())
    repository, _, tag = namespace.image.rpartition(":")
    kustomization["images"] = [{"name": "finetune", "newName": repository, "newTag": tag}]
    kustomization["namespace"] = namespace.name
    patch: list[dict[str, Any]] = [
        {
            "op": "add",
            "path": "/spec/jobTemplate/spec/template/spec/containers/0/env/-",
            "value": pictures.values()["extraEnv"][0],
        },
        {"op": "remove", "path": "/spec/jobTemplate/spec/template/spec/containers/0/resources/requests"},
        {"op": "remove", "path": "/spec/jobTemplate/spec/template/spec/containers/0/resources/limits/cpu"},
    ]
    kustomization["patches"] = [{"target": {"kind": "CronJob"}, "patch": json.dumps(patch)}]
    (tmp_path / "k8s/kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    settings = yaml.safe_load((K8S / "config.yaml").read_text())
    for key, value in {**TINY, **pictures.values()}.items():
        if key.startswith("config."):
            _, group, name = key.split(".")
            settings.setdefault(group, {})[name] = value
    (tmp_path / "k8s/config.yaml").write_text(yaml.safe_dump(settings))

    namespace.kubectl("apply", "-k", tmp_path / "k8s")
    namespace.kubectl("create", "job", "first", "--from=cronjob/finetune")

    assert "Complete" == namespace.finish("first"), namespace.describe()
    assert f"{pictures.only_run()}/_SUCCESS" in pictures.names()
    assert ("Normal", "Published") in namespace.events("Job")


def test_one_file_job(namespace: Namespace, pictures: Bucket, tmp_path: Path) -> None:
    """`kubectl create -f k8s/job.yaml` needs nothing beside the file."""
    job = yaml.safe_load((K8S / "job.yaml").read_text())
    [container] = job["spec"]["template"]["spec"]["containers"]
    container["image"] = namespace.image
    container["env"] += pictures.values()["extraEnv"]
    container["resources"]["requests"] = {"cpu": "100m", "memory": "1Gi"}
    values = TINY | pictures.values()
    flags = {key.removeprefix("config."): value for key, value in values.items() if key.startswith("config.")}
    kept = [argument for argument in container["args"] if argument.split("=")[0].removeprefix("--") not in flags]
    container["args"] = kept + [f"--{name}={str(value).lower()}" for name, value in flags.items()]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    created = namespace.kubectl("create", "-f", tmp_path / "job.yaml", "--output=name").strip()

    assert "Complete" == namespace.finish(created.removeprefix("job.batch/")), namespace.describe()
    assert f"{pictures.only_run()}/_SUCCESS" in pictures.names()


def test_a_native_sidecar(namespace: Namespace, pictures: Bucket) -> None:
    """A native sidecar that never ends by itself neither keeps the Job from completing nor makes it fail."""
    sidecar = {
        "name": "proxy",
        "image": namespace.image,
        "imagePullPolicy": "Never",
        "restartPolicy": "Always",
        "command": ["python", "-c", "import signal; signal.signal(15, lambda *_: exit(3)); signal.pause()"],
        "resources": {"requests": {"cpu": "10m"}, "limits": {"memory": "100Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }

    job = namespace.install(light(TINY | pictures.values()) | {"extraInitContainers": [sidecar]})

    assert "Complete" == namespace.finish(job), namespace.describe()
    assert [0] == exit_codes(namespace.pods(job))


def test_older_values_are_reused(namespace: Namespace, tmp_path: Path) -> None:
    """`helm upgrade --reuse-values` from a chart that had no `gpu` and no `cache` yet works."""
    older = shutil.copytree(CHART, tmp_path / "helm")
    values = yaml.safe_load((older / "values.yaml").read_text())
    (older / "values.yaml").write_text(
        yaml.safe_dump({key: value for key, value in values.items() if key not in {"gpu", "cache"}})
    )
    namespace.helm("install", "finetune", older, *namespace.settings(command="summary"))

    namespace.helm("upgrade", "finetune", CHART, "--reuse-values")

    [job] = [one for one in namespace.get("jobs") if "deletionTimestamp" not in one["metadata"]]
    assert "Complete" == namespace.finish(job["metadata"]["name"]), namespace.describe()


@pytest.fixture(scope="module")
def dry_runs(new_namespace: Callable[..., Namespace]) -> Namespace:
    """Return a namespace in which nothing is created."""
    return new_namespace()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"cronjob.enabled": True, "cronjob.schedule": "0 3 * * *", "cronjob.timeZone": "Europe/Zurich"},
        {
            "cronjob": {"enabled": True, "schedule": "@daily", "plan": True},
            "config.input.uri": "gs://b/in",
            "config.output.uri": "gs://b/out",
        },
        {"networkPolicy.enabled": True, "events.enabled": False, "spot": True},
        {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None, "supplementalGroups": [4000]}},
        {"podSpec": {"schedulerName": "volcano", "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]}},
        {
            "kueue": {"queueName": "2025", "priorityClass": "007", "maxExecTimeSeconds": 60},
            "commonLabels": {"a": "1e5"},
        },
        {
            "cronjob": {"enabled": True, "schedule": "@daily", "suspend": True},
            "envFrom": [{"secretRef": {"name": "x"}}],
        },
        {"cache.type": "ephemeral", "cache.storageClassName": "fast", "googleCredentials.existingSecret": "gcp"},
        {"cache.type": "existingClaim", "cache.existingClaim": "pvc", "kueue.queueName": "gpus"},
        {"resources.limits.cpu": None, "job.ttlSecondsAfterFinished": 0, "job.activeDeadlineSeconds": 5},
        {"gpu.count": 2, "gpu.sharedMemory": "2Gi"},
        {"workers": 3, "config.output.uri": "gs://b/out", "networkPolicy.enabled": True, "gpu.count": 2},
        {
            "workers": 256,
            "config.output.uri": "gs://b/out",
            "cronjob.enabled": True,
            "fullnameOverride": "2" * 45 + "a",
        },
        {"priorityClassName": "system-node-critical", "runtimeClassName": "nvidia", "affinity": {"nodeAffinity": {}}},
    ],
    ids=lambda values: ",".join(values) or "none",
)
def test_the_api_server_takes_every_rendering(dry_runs: Namespace, values: dict[str, Any]) -> None:
    """What the chart renders is valid to the API server, and warns of nothing under `restricted`."""
    rendered = dry_runs.helm("template", "finetune", CHART, "--no-hooks", *dry_runs.settings(**values))

    said = dry_runs.kubectl("apply", "--dry-run=server", "-f", "-", stdin=rendered, check=False)

    assert "Error" not in said
    assert "Warning" not in said
    assert "serviceaccount/" in said


def test_the_api_server_takes_every_example(namespace: Namespace) -> None:
    """Every values file of examples/values is valid to the API server, and warns of nothing under `restricted`."""
    found = {}
    for path in sorted((ROOT / "examples/values").glob("*.yaml")):
        rendered = namespace.helm("template", "finetune", CHART, "--no-hooks", "--values", path)
        found[path.stem] = namespace.kubectl("apply", "--dry-run=server", "-f", "-", stdin=rendered, check=False)

    assert len(found) > 10
    assert {} == {
        name: said
        for name, said in found.items()
        if re.search("Error|Warning", said) or "job.batch/finetune" not in said
    }


def test_patch_for_a_restricted_namespace(namespace: Namespace) -> None:
    """A Job that kubectl writes by itself violates `restricted`; with the patch of docs/operations.md it does not."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^```sh\n(kubectl create job .*?)^```", page, re.MULTILINE | re.DOTALL)
    for old, new in (
        ("NAME", "by-hand"),
        ("IMAGE", namespace.image),
        ("kubectl create --filename -", "kubectl create --dry-run=server --filename -"),
        ("kubectl ", f"kubectl --namespace {namespace.name} "),
    ):
        command = command.replace(old, new)
    plain = namespace.kubectl("create", "job", "plain", f"--image={namespace.image}", "--dry-run=server", check=False)

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)

    assert "would violate PodSecurity" in plain
    assert (0, "job.batch/by-hand created (server dry run)\n", "") == (done.returncode, done.stdout, done.stderr)
