"""What helm makes of the chart: a test for every value that changes the output."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import readme
import yaml
from charts import CHART, ROOT, Rendered

from job.config.load import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from charts import Helm

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
PLAN = ("cronjob.enabled=true", "cronjob.schedule=@daily", "cronjob.plan=true")
SHARED_MEMORY = "/dev/shm"  # noqa: S108  # a path in the Pod
BUCKET = ("config.input.uri=gs://b/pictures", "config.output.uri=gs://b/models")


def names(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all values, groups as well."""
    found = []
    for key, value in values.items():
        found.append(prefix + key)
        if isinstance(value, dict):
            found += names(value, f"{prefix}{key}.")
    return found


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the one item of this name."""
    [item] = [item for item in items if item["name"] == name]
    return item


def test_lint(helm: Helm) -> None:
    """Helm finds nothing wrong with the chart."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART).stdout


def test_every_helm_renders_the_plain_manifests(helm: Helm) -> None:
    """k8s/ is what each version of Helm renders."""
    command: list[str | Path] = [sys.executable, ROOT / "scripts/generate.py", "--check", "--helm", helm.path]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert (0, "") == (done.returncode, done.stdout), done.stderr


# The Job


def test_without_values_it_is_the_demo(helm: Helm) -> None:
    """Without values the job trains on the demo pictures with one GPU, and publishes to an emptyDir."""
    found = helm.render()

    assert {"ServiceAccount", "Role", "RoleBinding", "Job", "test"} == set(found.objects)
    assert {"input": {"uri": ""}, "output": {"uri": "/output"}} == {
        key: found.config[key] for key in ("input", "output")
    }
    assert {"sizeLimit": "2Gi"} == named(found.pod["volumes"], "output")["emptyDir"]
    assert ["run", "--config", "/etc/finetune/config.yaml"] == found.container["args"]
    assert "command" not in found.container


def test_job_fields(helm: Helm) -> None:
    """The Job has the fields of a safe batch job, and no deadline and no TTL by default."""
    found = helm.render()
    spec = found.job["spec"]

    assert (10, "Failed", "Never", False) == (
        spec["backoffLimit"], spec["podReplacementPolicy"], found.pod["restartPolicy"], found.pod["enableServiceLinks"]
    )  # fmt: skip
    assert not {"activeDeadlineSeconds", "ttlSecondsAfterFinished", "suspend"} & set(spec)
    assert ["Ignore", "Ignore", "FailJob"] == [rule["action"] for rule in spec["podFailurePolicy"]["rules"]]
    assert ("/dev/termination-log", "FallbackToLogsOnError") == (
        found.container["terminationMessagePath"], found.container["terminationMessagePolicy"]
    )  # fmt: skip
    given = helm.render("job.backoffLimit=0", "job.activeDeadlineSeconds=60", "job.ttlSecondsAfterFinished=0").job[
        "spec"
    ]
    assert (0, 60, 0) == tuple(
        given[key] for key in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
    )


def test_pods_are_told_apart_by_component(helm: Helm) -> None:
    """The Pods of the job and of `helm test` share the application's labels and differ in the component."""
    found = helm.render()
    of_job, of_test = found.job["spec"]["template"]["metadata"]["labels"], found.objects["test"]["metadata"]["labels"]

    assert ("job", "test") == (of_job["app.kubernetes.io/component"], of_test["app.kubernetes.io/component"])
    for label in ("app.kubernetes.io/name", "app.kubernetes.io/instance"):
        assert of_job[label] == of_test[label]


def test_the_job_knows_its_uid(helm: Helm) -> None:
    """The Job's UID is passed to its Pods as a setting, so that all of them work on one run."""
    env = named(helm.render().container["env"], "FINETUNE_RUN__JOB_UID")

    assert "metadata.labels['batch.kubernetes.io/controller-uid']" == env["valueFrom"]["fieldRef"]["fieldPath"]


@pytest.mark.parametrize("cronjob", ["false", "true"])
def test_settings_are_in_the_pod_itself(helm: Helm, cronjob: str) -> None:
    """The values under `config` become the --config file, which is an annotation: a Pod needs no object beside it."""
    found = helm.render(f"cronjob.enabled={cronjob}", *BUCKET, "config.fine_tuning.epochs=3", "config.keep=last")

    assert "ConfigMap" not in found.text
    assert (3, "last") == (found.config["fine_tuning"]["epochs"], found.config["keep"])
    annotations = found.objects["test"]["metadata"]["annotations"]
    assert found.settings_file == annotations["finetune/config.yaml"]
    for pod in (found.pod, found.objects["test"]["spec"]):
        [item] = named(pod["volumes"], "config")["downwardAPI"]["items"]
        field = {"fieldPath": "metadata.annotations['finetune/config.yaml']"}
        assert {"path": "config.yaml", "fieldRef": field} == item
        assert "/etc/finetune" == named(pod["containers"][0]["volumeMounts"], "config")["mountPath"]
    assert [] == [volume["name"] for volume in found.pod["volumes"] if volume["name"] == "output"]


def test_settings_fit_into_an_annotation(helm: Helm, tmp_path: Path) -> None:
    """Settings above 200 KiB are refused: Kubernetes would refuse the Pod, only after the Job was made."""
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"config": {"input": {"exclude": ["x" * 204800]}}}))

    assert "config has 20" in helm.template("--values", values, check=False).stderr


@pytest.mark.parametrize(
    ("setting", "another"),
    [
        ("config.run.seed=8", True),
        ("image.tag=other", True),
        ("resources.limits.cpu=2", True),
        ("podLabels.team=a", True),
        ("kueue.queueName=q", True),
        ("job.backoffLimit=5", False),
        ("job.labels.team=a", False),
        ("cronjob.successfulJobsHistoryLimit=1", False),
        ("test.resources.limits.cpu=2", False),
    ],
)
def test_another_template_is_another_job(helm: Helm, setting: str, another: bool) -> None:
    """The Job's name changes with its immutable fields, and with nothing else."""
    before, after = (helm.render(*settings).objects["Job"]["metadata"]["name"] for settings in ((), (setting,)))

    assert another == (before != after)


def test_another_version_of_the_chart_is_the_same_job(helm: Helm, tmp_path: Path) -> None:
    """A new version of the chart that changes nothing for the Pod keeps the Job's name."""
    chart = shutil.copytree(CHART, tmp_path / "helm")
    text = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"^version: .*$", "version: 9.9.9", text, flags=re.MULTILINE))

    newer = Rendered(helm.template(chart=chart).stdout)

    assert "finetune-9.9.9" == newer.objects["Job"]["metadata"]["labels"]["helm.sh/chart"]
    assert helm.render().objects["Job"]["metadata"]["name"] == newer.objects["Job"]["metadata"]["name"]


def test_long_names_differ(helm: Helm) -> None:
    """Two long names that begin alike are two names: a cut name ends in a hash of the whole."""
    names = [
        helm.render(f"fullnameOverride={'a' * 60}-{end}").objects["ServiceAccount"]["metadata"]["name"] for end in "xy"
    ]

    assert names[0] != names[1]
    assert [50, 50] == [len(name) for name in names]


def test_names_fit(helm: Helm) -> None:
    """Names of Job and CronJob leave room for Kubernetes' suffixes, however long the release's name is."""
    long = "fullnameOverride=" + "a" * 63
    assert len(helm.render(long).objects["Job"]["metadata"]["name"]) <= 59
    assert len(helm.render(long, "cronjob.enabled=true").objects["CronJob"]["metadata"]["name"]) <= 52


# GPU, resources, security


def test_one_gpu_is_required_where_it_is_requested(helm: Helm) -> None:
    """The GPU is in the limits once, and the job requires it."""
    found = helm.render()

    assert 1 == found.container["resources"]["limits"]["nvidia.com/gpu"]
    assert "nvidia.com/gpu" not in found.container["resources"]["requests"]
    assert {"require_gpu": True} == found.config["device"]
    assert [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] == found.pod["tolerations"]


def test_gpu_values(helm: Helm) -> None:
    """Count, resource and model of the GPU are rendered; require_gpu follows the count."""
    l4 = helm.render("gpu.accelerator=nvidia-l4")
    mig = helm.render("gpu.resource=nvidia.com/mig-1g.10gb")
    none = helm.render("gpu.count=0")
    lenient = helm.render("config.device.require_gpu=false")

    assert {"cloud.google.com/gke-accelerator": "nvidia-l4"} == l4.pod["nodeSelector"]
    assert 1 == mig.container["resources"]["limits"]["nvidia.com/mig-1g.10gb"]
    assert "nvidia.com" not in none.text
    assert "device" not in none.config
    assert {"require_gpu": False} == lenient.config["device"]
    assert 1 == lenient.container["resources"]["limits"]["nvidia.com/gpu"]


def test_shared_memory_of_several_gpus(helm: Helm) -> None:
    """With several GPUs /dev/shm is a volume in memory, of the size that `doctor` asks for, unless there is one."""
    one, two = helm.render(), helm.render("gpu.count=2")
    given = helm.render("gpu.count=2", "gpu.sharedMemory=2Gi", "resources.limits.memory=null")
    own = helm.render(
        "gpu.count=2",
        'extraVolumes=[{"name": "own", "emptyDir": {"medium": "Memory"}}]',
        f'extraVolumeMounts=[{{"name": "own", "mountPath": "{SHARED_MEMORY}/"}}]',
    )

    assert 2 == two.container["resources"]["limits"]["nvidia.com/gpu"]
    assert {"require_gpu": True} == two.config["device"]
    assert {"medium": "Memory", "sizeLimit": "1Gi"} == named(two.pod["volumes"], "shared-memory")["emptyDir"]
    assert SHARED_MEMORY == named(two.container["volumeMounts"], "shared-memory")["mountPath"]
    assert "2Gi" == named(given.pod["volumes"], "shared-memory")["emptyDir"]["sizeLimit"]
    assert [False, False] == ["shared-memory" in found.text for found in (one, own)]
    assert two.container["resources"]["limits"]["memory"] == one.container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("setting", ["resources.limits=null", "resources={}", 'resources={"requests":{"cpu":1}}'])
def test_gpu_without_other_limits(helm: Helm, setting: str) -> None:
    """The GPU is in the limits, even if the other limits are dropped."""
    assert 1 == helm.render(setting).container["resources"]["limits"]["nvidia.com/gpu"]


@pytest.mark.parametrize("command", ["summary", "validate"])
def test_other_commands_ask_for_no_gpu(helm: Helm, command: str) -> None:
    """`summary` and `validate` request no GPU, and `validate` needs no output."""
    found = helm.render(f"command={command}", "config.input.uri=gs://my-bucket/flowers")

    assert command == found.container["args"][0]
    assert "nvidia.com" not in found.text
    assert "device" not in found.config


@pytest.mark.parametrize("command", ["predict", "evaluate", "verify"])
def test_commands_with_arguments(helm: Helm, command: str) -> None:
    """The arguments follow the settings, as they were given; no GPU is requested, and no output needed."""
    arguments = ["gs://my-bucket/models/latest", "gs://my-bucket/a b", "--out", "gs://my-bucket/scored"]
    found = helm.render(f"command={command}", f"arguments={json.dumps(arguments)}")

    assert [command, "--config", "/etc/finetune/config.yaml", *arguments] == found.container["args"]
    assert "nvidia.com" not in found.text
    other = helm.render(f"command={command}", 'arguments=["gs://my-bucket/models/latest"]')
    assert found.job["metadata"]["name"] != other.job["metadata"]["name"]


def test_spot(helm: Helm) -> None:
    """A Spot Pod selects Spot nodes, and its grace period is the one that GKE grants."""
    pod = helm.render("spot=true").pod

    assert {"cloud.google.com/gke-spot": "true"} == pod["nodeSelector"]
    assert "cloud.google.com/gke-spot" in [one["key"] for one in pod["tolerations"]]
    assert (15, 30) == (pod["terminationGracePeriodSeconds"], helm.render().pod["terminationGracePeriodSeconds"])


def test_every_container_has_requests_and_limits(helm: Helm) -> None:
    """A namespace with a ResourceQuota admits the Job, the plan and the test."""
    found = helm.render(*PLAN, *BUCKET)

    for pod in found.pods:
        for container in pod["containers"]:
            for kind in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind])


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("cronjob.enabled=true",),
        ("gpu.count=0", "events.enabled=false"),
        ('podSecurityContext={"runAsUser":null,"runAsGroup":null,"fsGroup":null}',),
        ("podSpec.schedulerName=other", "podSpec.shareProcessNamespace=true"),
        (*PLAN, *BUCKET, 'podSecurityContext={"runAsUser":null}'),
    ],
)
def test_restricted(helm: Helm, settings: tuple[str, ...]) -> None:
    """Every Pod is non-root, read-only, without capabilities and under seccomp, and shares nothing with the node."""
    found = helm.render(*settings)

    for pod in found.pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert "RuntimeDefault" == pod["securityContext"]["seccompProfile"]["type"]
        for container in pod["containers"]:
            assert {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "privileged": False,
                "readOnlyRootFilesystem": True,
            } == container["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert [] == [volume for volume in pod["volumes"] if "hostPath" in volume]


def test_events_alone_need_the_token(helm: Helm) -> None:
    """The Role may create Events and nothing else; without Events there is no Role and no token."""
    found, without = helm.render(), helm.render("events.enabled=false")

    assert [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}] == found.objects["Role"]["rules"]
    assert [True, False] == [one.pod["automountServiceAccountToken"] for one in (found, without)]
    assert [True, False] == [one.config["events"]["enabled"] for one in (found, without)]
    assert found.objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert found.objects["test"]["spec"]["automountServiceAccountToken"] is False
    assert not {"Role", "RoleBinding"} & set(without.objects)
    assert "FINETUNE_EVENTS" not in without.text


def test_service_account(helm: Helm) -> None:
    """The account is created, with Workload Identity's annotation, or an existing one is used."""
    annotation = "iam\\.gke\\.io/gcp-service-account=a@p.iam.gserviceaccount.com"
    made = helm.render(f"serviceAccount.annotations.{annotation}")
    found = helm.render("serviceAccount.create=false", "serviceAccount.name=trainer")

    assert {"iam.gke.io/gcp-service-account": "a@p.iam.gserviceaccount.com"} == made.objects["ServiceAccount"][
        "metadata"
    ]["annotations"]
    assert "ServiceAccount" not in found.objects
    assert "trainer" == found.pod["serviceAccountName"] == found.objects["RoleBinding"]["subjects"][0]["name"]


def test_google_credentials(helm: Helm) -> None:
    """A key from a Secret is mounted where Google's libraries are told to look, in the test as well."""
    found = helm.render("googleCredentials.existingSecret=gcp", "googleCredentials.key=k")

    for pod in (found.pod, found.objects["test"]["spec"]):
        [container] = pod["containers"]
        path = named(container["env"], "GOOGLE_APPLICATION_CREDENTIALS")["value"]
        mount = named(container["volumeMounts"], "google-credentials")
        assert f"{mount['mountPath']}/key.json" == path
        assert {"secretName": "gcp", "items": [{"key": "k", "path": "key.json"}]} == named(
            pod["volumes"], "google-credentials"
        )["secret"]


# Cache


def test_cache(helm: Helm) -> None:
    """The cache is an emptyDir, an ephemeral volume or a claim; the job may use three quarters of it."""
    plain = helm.render()
    ephemeral = helm.render("cache.type=ephemeral", "cache.sizeLimit=100G", "cache.storageClassName=fast")
    claim = helm.render("cache.type=existingClaim", "cache.existingClaim=pvc")

    assert {"sizeLimit": "20Gi"} == named(plain.pod["volumes"], "cache")["emptyDir"]
    assert {"dir": "/cache", "max_bytes": 15 * 2**30} == plain.config["cache"]
    template = named(ephemeral.pod["volumes"], "cache")["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert ("fast", {"requests": {"storage": "100G"}}) == (template["storageClassName"], template["resources"])
    assert 75 * 10**9 == ephemeral.config["cache"]["max_bytes"]
    assert {"claimName": "pvc"} == named(claim.pod["volumes"], "cache")["persistentVolumeClaim"]
    assert {"dir": "/cache"} == claim.config["cache"]
    assert ["25Gi", "5Gi", "5Gi"] == [
        one.container["resources"][kind]["ephemeral-storage"]
        for one, kind in ((plain, "limits"), (ephemeral, "limits"), (claim, "requests"))
    ]
    assert 5 == helm.render("config.cache.max_bytes=5").config["cache"]["max_bytes"]


def test_volumes_of_ended_pods(helm: Helm) -> None:
    """The Jobs of a CronJob, whose ended Pods keep their volumes, are deleted after a day; a release's Job never is."""

    def ttl(*settings: str) -> object:
        return helm.render(*settings).job["spec"].get("ttlSecondsAfterFinished")

    ephemeral, cronjob = "cache.type=ephemeral", "cronjob.enabled=true"
    assert [None, None, None, 86400] == [ttl(), ttl(ephemeral), ttl(cronjob), ttl(ephemeral, cronjob)]
    assert [0, 60] == [ttl(ephemeral, cronjob, f"job.ttlSecondsAfterFinished={seconds}") for seconds in (0, 60)]


# Placement and what others add


@pytest.mark.parametrize("cronjob", ["false", "true"])
def test_labels_and_annotations(helm: Helm, cronjob: str) -> None:
    """Labels and annotations reach the Pod template and the Job, of the Job as of the CronJob."""
    job = helm.render(
        f"cronjob.enabled={cronjob}",
        "podLabels.a=1",
        'podAnnotations={"sidecar.istio.io/inject": "false"}',
        "job.labels.b=x",
        "job.annotations.c=true",
        "kueue.queueName=gpus",
    ).job

    pod = job["spec"]["template"]["metadata"]
    assert "1" == pod["labels"]["a"]
    assert "false" == pod["annotations"]["sidecar.istio.io/inject"]
    assert ("x", "gpus") == (job["metadata"]["labels"]["b"], job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"])
    assert "true" == job["metadata"]["annotations"]["c"]
    assert "suspend" not in job["spec"]


def test_placement(helm: Helm) -> None:
    """Selector, tolerations, affinity, priority, runtime and pull secrets are the Pod's."""
    pod = helm.render(
        "nodeSelector.disk=ssd",
        'tolerations=[{"key": "t", "operator": "Exists"}]',
        'affinity={"nodeAffinity": {}}',
        "priorityClassName=high",
        "runtimeClassName=nvidia",
        'imagePullSecrets=[{"name": "reg"}]',
        "terminationGracePeriodSeconds=20",
    ).pod

    assert {"disk": "ssd"} == pod["nodeSelector"]
    assert {"key": "t", "operator": "Exists"} in pod["tolerations"]
    assert ({"nodeAffinity": {}}, "high", "nvidia", [{"name": "reg"}], 20) == tuple(
        pod[key]
        for key in (
            "affinity",
            "priorityClassName",
            "runtimeClassName",
            "imagePullSecrets",
            "terminationGracePeriodSeconds",
        )
    )


def test_extras(helm: Helm) -> None:
    """Extra environment, volumes and sidecars are rendered; the first two in the test Pod as well."""
    found = helm.render(
        'extraEnv=[{"name": "A", "value": 1000000}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]',
        'extraVolumes=[{"name": "data", "emptyDir": {}}]',
        'extraVolumeMounts=[{"name": "data", "mountPath": "/data"}]',
        'extraInitContainers=[{"name": "proxy", "image": "proxy", "restartPolicy": "Always"}]',
        "config.input.uri=/data/in",
        "config.output.uri=/data/out",
    )

    for pod in (found.pod, found.objects["test"]["spec"]):
        [container] = pod["containers"]
        assert "1000000" == named(container["env"], "A")["value"]
        assert "valueFrom" in named(container["env"], "B")
        assert "/data" == named(container["volumeMounts"], "data")["mountPath"]
        assert {} == named(pod["volumes"], "data")["emptyDir"]
    assert "Always" == named(found.pod["initContainers"], "proxy")["restartPolicy"]
    assert "initContainers" not in found.objects["test"]["spec"]


def test_network_policy(helm: Helm) -> None:
    """The network policy allows DNS, HTTPS at the given addresses and the metadata server."""
    found = helm.render("networkPolicy.enabled=true", 'networkPolicy.cidrs=["199.36.153.8/30"]')
    closed = helm.render("networkPolicy.enabled=true", "networkPolicy.metadataServer=false", "networkPolicy.cidrs=[]")
    spec = found.objects["NetworkPolicy"]["spec"]

    assert "NetworkPolicy" not in helm.render().objects
    assert [] == spec["ingress"]
    assert [["53/UDP", "53/TCP"], ["443/TCP"], ["80/TCP", "987/TCP", "988/TCP"]] == [
        [f"{port['port']}/{port['protocol']}" for port in rule["ports"]] for rule in spec["egress"]
    ]
    assert [{"ipBlock": {"cidr": "199.36.153.8/30"}}] == spec["egress"][1]["to"]
    assert 1 == len(closed.objects["NetworkPolicy"]["spec"]["egress"])
    labels = found.job["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    extra = helm.render("networkPolicy.enabled=true", 'networkPolicy.extraEgress=[{"ports": [{"port": 4443}]}]')
    assert {"ports": [{"port": 4443}]} == extra.objects["NetworkPolicy"]["spec"]["egress"][-1]


def test_image(helm: Helm) -> None:
    """A digest overrides a tag; without either the tag is the chart's appVersion."""
    digest = "sha256:" + "0" * 64
    plain = helm.render("image.repository=r/x", "image.pullPolicy=Never")

    assert re.fullmatch(r"r/x:\d+\.\d+\.\d+.*", plain.container["image"])
    assert plain.container["image"] == plain.objects["test"]["spec"]["containers"][0]["image"]
    assert "Never" == plain.container["imagePullPolicy"]
    assert "r/x:t" == helm.render("image.repository=r/x", "image.tag=t").container["image"]
    assert (
        f"r/x@{digest}"
        == helm.render("image.repository=r/x", "image.tag=t", f"image.digest={digest}").container["image"]
    )


def test_doctor_is_what_helm_test_runs(helm: Helm) -> None:
    """The test Pod checks stores and weights with the release's settings; the GPU and the disks are not its own."""
    found = helm.render(*BUCKET, "config.storage.user_project=payer")
    [container] = found.objects["test"]["spec"]["containers"]

    checks = ["doctor", "--only", "storage,weights", "--timeout", "60"]
    assert [*checks, "--config", "/etc/finetune/config.yaml"] == container["args"]
    assert "command" not in container
    assert "/etc/finetune" == named(container["volumeMounts"], "config")["mountPath"]
    assert not [name for name in container["resources"]["limits"] if "gpu" in name]


def test_doctor_in_place_of_the_job(helm: Helm) -> None:
    """With command=doctor the Job's own Pod, with its GPU and volumes, is checked; it must have the GPU it requires."""
    found, run = helm.render("command=doctor"), helm.render()

    assert ["doctor", "--config", "/etc/finetune/config.yaml"] == found.container["args"]
    assert run.config == found.config
    for part in ("resources", "volumeMounts", "env"):
        assert run.container[part] == found.container[part]
    assert "config.device.require_gpu" in helm.refusal(
        "command=doctor", "gpu.count=0", "config.device.require_gpu=true"
    )


@pytest.mark.parametrize(
    "elsewhere",
    [
        "cache.type=ephemeral",
        "config.cache.dir=/data/cache,extraVolumeMounts[0].name=d,extraVolumeMounts[0].mountPath=/data",
        "cache.type=existingClaim,cache.existingClaim=pvc",
    ],
)
def test_limit_of_ephemeral_storage(helm: Helm, elsewhere: str) -> None:
    """A Pod whose cache is an emptyDir knows the limit above which it is evicted."""
    name = "FINETUNE_CACHE__VOLUME_LIMIT_BYTES"
    env = named(helm.render().container["env"], name)

    assert "limits.ephemeral-storage" == env["valueFrom"]["resourceFieldRef"]["resource"]
    assert name not in helm.render(elsewhere).text


def test_names(helm: Helm) -> None:
    """Both ways to name the objects reach the account and the Job."""
    assert "finetune-other" == helm.render("nameOverride=other").objects["ServiceAccount"]["metadata"]["name"]
    assert "flowers" == helm.render("fullnameOverride=flowers").objects["ServiceAccount"]["metadata"]["name"]
    assert "a" == helm.render("serviceAccount.name=a").pod["serviceAccountName"]


def test_test_resources(helm: Helm) -> None:
    """The test Pod's resources are its own."""
    [container] = helm.render("test.resources.limits.memory=1Gi").objects["test"]["spec"]["containers"]

    assert "1Gi" == container["resources"]["limits"]["memory"]


def test_identity_of_the_pod(helm: Helm) -> None:
    """The user may be dropped, as OpenShift needs it, and groups added, as NFS does; the rest of "restricted" stays."""
    for_openshift = helm.render('podSecurityContext={"runAsUser":null,"runAsGroup":null,"fsGroup":null}')
    for_nfs = helm.render("podSecurityContext.supplementalGroups=[4000]", "podSecurityContext.runAsUser=1000")
    always = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}

    assert always | {"fsGroupChangePolicy": "OnRootMismatch"} == for_openshift.pod["securityContext"]
    assert for_openshift.pod["securityContext"] == for_openshift.objects["test"]["spec"]["securityContext"]
    assert (1000, 65532, [4000]) == tuple(
        for_nfs.pod["securityContext"][key] for key in ("runAsUser", "fsGroup", "supplementalGroups")
    )


def test_what_the_chart_does_not_know(helm: Helm) -> None:
    """podSpec, claims, envFrom, common labels and extra objects are rendered, and are part of the Job's template."""
    settings = (
        "podSpec.schedulerName=volcano",
        'podSpec.resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "one"}]',
        'resources.claims=[{"name": "gpu"}]',
        "gpu.count=0",
        "config.device.require_gpu=true",
        'envFrom=[{"secretRef": {"name": "proxy"}}]',
        "commonLabels.team=007",
        'extraObjects=[{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}]',
        "kueue.queueName=q",
        "kueue.priorityClass=high",
        "kueue.maxExecTimeSeconds=3600",
    )
    found = helm.render(*settings)

    assert "volcano" == found.pod["schedulerName"]
    assert [{"name": "gpu"}] == found.container["resources"]["claims"]
    assert [{"secretRef": {"name": "proxy"}}] == found.container["envFrom"]
    assert "x" == found.objects["Secret"]["metadata"]["name"]
    for one in (found.job, found.job["spec"]["template"], found.objects["ServiceAccount"], found.objects["test"]):
        assert one["metadata"]["labels"]["team"]
    labels = found.job["metadata"]["labels"]
    assert ("high", "3600") == tuple(
        labels[f"kueue.x-k8s.io/{name}"] for name in ("priority-class", "max-exec-time-seconds")
    )


TEXTS = ["2025", "007", "true", "null", "1e5", "0x1f", "~", "on"]
"""What YAML reads as something else than a text, unless it is quoted."""


def texts(node: Any, path: str = "") -> dict[str, Any]:
    """Return path -> value of everything in a document that is no map and no list."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return {key: one for name, inner in items for key, one in texts(inner, f"{path}/{name}").items()} or {path: node}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_stay_texts(helm: Helm, tmp_path: Path, text: str) -> None:
    """A text from outside is a text in what is rendered, also where it looks like a number, a boolean or nothing."""
    name = text if re.fullmatch(r"[a-z0-9]+", text) else "abc"

    def values(word: str, name: str) -> str:
        return json.dumps(
            {
                "image": {"repository": f"reg/{name}", "tag": name},
                "imagePullSecrets": [{"name": name}],
                "nameOverride": name,
                "serviceAccount": {"name": name, "annotations": {"a": word}},
                "googleCredentials": {"existingSecret": name, "key": name},
                "kueue": {"queueName": name, "priorityClass": name},
                "priorityClassName": name,
                "runtimeClassName": name,
                "nodeSelector": {"a": word},
                "podLabels": {"a": word},
                "podAnnotations": {"a": word},
                "commonLabels": {"c": word},
                "job": {"labels": {"b": word}, "annotations": {"a": word}},
                "cronjob": {
                    "enabled": True,
                    "schedule": "@daily",
                    "timeZone": name,
                    "plan": True,
                    "planNodeSelector": {"a": word},
                    "planServiceAccountAnnotations": {"a": word},
                },
                "cache": {"type": "ephemeral", "storageClassName": name, "sizeLimit": "20Gi"},
                "extraEnv": [{"name": "A", "value": word}],
                "envFrom": [{"secretRef": {"name": name}}],
                "podSpec": {"schedulerName": name},
                "networkPolicy": {"enabled": True},
                "config": {"run": {"id": name}, "input": {"uri": "gs://b/in"}, "output": {"uri": "gs://b/out"}},
            }
        )

    found = helm.render(values=values(text, name), tmp_path=tmp_path)
    plain = helm.render(values=values("plain", "plain"), tmp_path=tmp_path)

    def kinds(rendered: Rendered) -> dict[str, type]:
        return {path: type(value) for path, value in texts(rendered.objects).items()}

    assert kinds(plain) == kinds(found)
    assert text == found.job["spec"]["template"]["metadata"]["labels"]["a"]
    assert name == found.pod["serviceAccountName"]
    assert name == yaml.safe_load(found.settings_file)["run"]["id"]


def test_release_of_digits(helm: Helm) -> None:
    """A release may be called 2025."""
    found = Rendered(helm.run("template", "2025", CHART).stdout)

    assert "2025" == found.job["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert found.job["metadata"]["name"].startswith("2025-finetune-")


def test_variables_without_a_value_are_left_out(helm: Helm, tmp_path: Path) -> None:
    """A variable that is null, as a parent chart's switch leaves it, is no variable of the value "null"."""
    values = "extraEnv: [null, {name: A, value: null}, {name: B, value: ''}]"

    env = helm.render(values=values, tmp_path=tmp_path).container["env"]

    assert "A" not in [one["name"] for one in env]
    assert "" == named(env, "B")["value"]


# CronJob


def test_cronjob(helm: Helm) -> None:
    """The CronJob replaces the Job, is suspended without a schedule, never runs two Jobs, and has the same Job spec."""
    idle = helm.render("cronjob.enabled=true")
    nightly = helm.render(
        "cronjob.enabled=true",
        "cronjob.schedule=0 3 * * *",
        "cronjob.timeZone=Europe/Zurich",
        "cronjob.successfulJobsHistoryLimit=7",
        "cronjob.failedJobsHistoryLimit=0",
    )

    assert "Job" not in idle.objects
    assert "finetune" == idle.objects["CronJob"]["metadata"]["name"]
    assert [True, None] == [one.objects["CronJob"]["spec"].get("suspend") for one in (idle, nightly)]
    for value in ("true", "false"):
        given = helm.render("cronjob.enabled=true", "cronjob.schedule=@daily", f"cronjob.suspend={value}")
        assert (value == "true") == given.objects["CronJob"]["spec"]["suspend"]
    assert ("0 3 * * *", "Europe/Zurich", "Forbid", 7, 0) == tuple(
        nightly.objects["CronJob"]["spec"][key]
        for key in ("schedule", "timeZone", "concurrencyPolicy", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    )
    assert helm.render().job["spec"] == idle.job["spec"]


# cronjob.plan


def test_plan_adds_a_cronjob(helm: Helm) -> None:
    """The schedule is the plan's; the CronJob with the GPU is suspended as without a schedule, and is the same else."""
    found = helm.render(*PLAN, *BUCKET, "cronjob.timeZone=Europe/Zurich", "cronjob.failedJobsHistoryLimit=0")
    idle = helm.render("cronjob.enabled=true", *BUCKET, "cronjob.failedJobsHistoryLimit=0")
    plan = found.objects["plan/CronJob"]

    assert idle.objects["CronJob"]["spec"] == found.objects["CronJob"]["spec"]
    assert ("finetune-plan", "@daily", "Europe/Zurich", "Forbid", 0) == (
        plan["metadata"]["name"],
        *(plan["spec"][key] for key in ("schedule", "timeZone", "concurrencyPolicy", "failedJobsHistoryLimit")),
    )
    assert "suspend" not in plan["spec"]
    assert [] == [kind for kind in idle.objects if kind.startswith("plan/")]


@pytest.mark.parametrize("suspend", [True, False])
def test_suspend_acts_on_the_plan(helm: Helm, suspend: bool) -> None:
    """`cronjob.suspend` pauses the schedule, which is the plan's."""
    found = helm.render(*PLAN, *BUCKET, f"cronjob.suspend={str(suspend).lower()}")

    assert (suspend, True) == tuple(found.objects[kind]["spec"]["suspend"] for kind in ("plan/CronJob", "CronJob"))


def plan_pod(found: Rendered) -> dict[str, Any]:
    """Return the spec of the plan's Pod."""
    return found.pods[-1]


def test_pod_of_the_plan(helm: Helm) -> None:
    """It runs `finetune plan` with the job's settings, volumes and variables, and requests no GPU."""
    settings = ('extraEnv=[{"name": "A", "value": "b"}]', "googleCredentials.existingSecret=gcp", "spot=true")
    found = helm.render(*PLAN, *BUCKET, *settings, "podLabels.team=ml", "cronjob.planImage=reg/finetune:cpu")
    pod, template = plan_pod(found), found.objects["plan/CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    [container] = pod["containers"]

    assert ["plan", "--config", "/etc/finetune/config.yaml", "--create-job", "finetune"] == container["args"]
    assert ("finetune", "reg/finetune:cpu") == (container["name"], container["image"])
    assert found.settings_file == template["metadata"]["annotations"]["finetune/config.yaml"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} == set(container["resources"]["requests"])
    assert ["A"] == [one["name"] for one in container["env"] if one["name"] == "A"]
    assert {"config", "tmp", "google-credentials"} == {volume["name"] for volume in pod["volumes"]}
    assert ("plan", "ml") == tuple(
        template["metadata"]["labels"][key] for key in ("app.kubernetes.io/component", "team")
    )
    rules = found.objects["plan/CronJob"]["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]
    assert found.job["spec"]["podFailurePolicy"] == rules
    assert found.container["image"] == plan_pod(helm.render(*PLAN, *BUCKET))["containers"][0]["image"]


def test_plan_starts_no_node_with_a_gpu(helm: Helm) -> None:
    """What places the Pod with the GPU does not apply to the plan's; what the network needs does."""
    settings = ("gpu.accelerator=nvidia-l4", "spot=true", "nodeSelector.pool=gpu", "runtimeClassName=nvidia")
    settings += ("priorityClassName=high", 'tolerations=[{"operator": "Exists"}]', "podSpec.dnsPolicy=ClusterFirst")
    settings += ('affinity={"nodeAffinity": {}}', 'podSpec.resourceClaims=[{"name": "gpu"}]', "podSpec.nodeName=gpu-1")
    plain = plan_pod(helm.render(*PLAN, *BUCKET, *settings))
    placed = plan_pod(
        helm.render(
            *PLAN, *BUCKET, *settings, "cronjob.planNodeSelector.pool=cpu",
            'cronjob.planTolerations=[{"key": "cpu", "operator": "Exists"}]',
        )
    )  # fmt: skip

    placing = {"nodeSelector", "affinity", "tolerations", "runtimeClassName", "priorityClassName", "nodeName"}
    assert set() == (placing | {"resourceClaims"}) & set(plain)
    assert "ClusterFirst" == plain["dnsPolicy"]
    assert ({"pool": "cpu"}, "cpu") == (placed["nodeSelector"], placed["tolerations"][0]["key"])


def test_account_of_the_plan(helm: Helm) -> None:
    """The plan has an account of its own, which may get the one CronJob and create Jobs; the training Pod's cannot."""
    found = helm.render(*PLAN, *BUCKET, "serviceAccount.annotations.a=b", "events.enabled=false")
    rules, binding = found.objects["plan/Role"]["rules"], found.objects["plan/RoleBinding"]

    assert [
        {"apiGroups": ["batch"], "resources": ["cronjobs"], "resourceNames": ["finetune"], "verbs": ["get"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]},
    ] == rules
    assert [{"kind": "ServiceAccount", "name": "finetune-plan", "namespace": "default"}] == binding["subjects"]
    assert ("Role", "finetune-plan") == (binding["roleRef"]["kind"], binding["roleRef"]["name"])
    pod = plan_pod(found)
    assert ("finetune-plan", True) == (pod["serviceAccountName"], pod["automountServiceAccountToken"])
    assert ("finetune", False) == (found.pod["serviceAccountName"], found.pod["automountServiceAccountToken"])
    assert {"a": "b"} == found.objects["plan/ServiceAccount"]["metadata"]["annotations"]
    own = helm.render(*PLAN, *BUCKET, "serviceAccount.annotations.a=b", "cronjob.planServiceAccountAnnotations.c=d")
    assert {"c": "d"} == own.objects["plan/ServiceAccount"]["metadata"]["annotations"]


def test_network_policy_covers_the_plan(helm: Helm) -> None:
    """The policy selects the plan's Pod as well as the job's."""
    found = helm.render(*PLAN, *BUCKET, "networkPolicy.enabled=true")
    selected = found.objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items()

    for kind in ("plan/CronJob", "CronJob"):
        template = found.objects[kind]["spec"]["jobTemplate"]["spec"]["template"]
        assert selected <= template["metadata"]["labels"].items()


def test_long_names_of_plans_differ(helm: Helm) -> None:
    """Two long releases have two plans, each with a name that Kubernetes takes, and that names its own."""
    found = [helm.render(*PLAN, *BUCKET, f"fullnameOverride={'a' * 60}-{end}") for end in "xy"]
    found += [helm.render(*PLAN, *BUCKET, f"fullnameOverride={'a' * count}") for count in (47, 48, 50)]

    names = [one.objects["plan/CronJob"]["metadata"]["name"] for one in found]
    assert len(found) == len(set(names))
    assert [52, 52, 52, 52, 52] == [len(name) for name in names]
    for one in found:
        [_, _, _, _, cronjob] = plan_pod(one)["containers"][0]["args"]
        assert one.objects["CronJob"]["metadata"]["name"] == cronjob
        assert [cronjob] == one.objects["plan/Role"]["rules"][0]["resourceNames"]


@pytest.mark.parametrize(
    "name",
    [name for name in names(VALUES["cronjob"], "cronjob.") if name not in ("cronjob.enabled", "cronjob.schedule")],
)
def test_null_drops_a_default_of_the_plan(helm: Helm, name: str) -> None:
    """Any value of the plan may be dropped with null; what is dropped is absent, never "null"."""
    found = helm.render(*PLAN, *BUCKET, f"{name}=null")

    assert not re.search(r":\s*(null|~|<no value>)\s*$", found.text, re.MULTILINE)
    assert ("plan/CronJob" in found.objects) == (name != "cronjob.plan")


# Mistakes


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (("gpu.count=0", "config.device.require_gpu=true"), ("config.device.require_gpu", "gpu.count")),
        (("config.input.uri=gs://b/x",), ("config.output.uri",)),
        (("config.input.uri=gs://b/x", "config.output.uri=gs://b/x/y"), ("config.output.uri", "config.input.uri")),
        (("config.input.uri=gs://b/x/", "config.output.uri=gs://b/x"), ("config.output.uri", "config.input.uri")),
        (("config.output.uri=/somewhere",), ("config.output.uri", "extraVolumeMounts")),
        (("terminationGracePeriodSeconds=5",), ("terminationGracePeriodSeconds",)),
        (("cache.type=existingClaim",), ("cache.existingClaim",)),
        (("cache.existingClaim=x",), ("cache.existingClaim", "cache.type")),
        (("cache.storageClassName=x",), ("cache.storageClassName", "cache.type")),
        (("cache.type=ephemeral", "cache.sizeLimit=null"), ("cache.sizeLimit",)),
        (("config.cache.max_bytes=30000000000",), ("config.cache.max_bytes", "cache.sizeLimit")),
        (
            ("cache.sizeLimit=100Gi", "resources.limits.ephemeral-storage=25Gi"),
            ("resources.limits.ephemeral-storage=25Gi", "cache.sizeLimit=100Gi"),
        ),
        (
            ("cache.type=ephemeral", "resources.limits.ephemeral-storage=1Gi"),
            ("resources.limits.ephemeral-storage=1Gi",),
        ),
        (("config.cache.dir=/tmp/x",), ("config.cache.dir=/tmp/x", "cache.sizeLimit")),
        (("resources.limits.cpu=500m",), ("resources.limits.cpu=500m", "resources.requests.cpu=1")),
        (("resources.limits.memory=7.5Gi",), ("resources.limits.memory=7.5Gi", "resources.requests.memory=8Gi")),
        (("resources.requests.ephemeral-storage=30Gi",), ("resources.requests.ephemeral-storage=30Gi",)),
        (("resources.limits.memory=8GB",), ('"8GB"',)),
        (
            ("gpu.count=2", "gpu.resource=nvidia.com/mig-1g.10gb"),
            ("gpu.count=2", "gpu.resource=nvidia.com/mig-1g.10gb"),
        ),
        (
            ("gpu.count=2", "gpu.sharedMemory=5Gi"),
            ("gpu.sharedMemory=5Gi", "resources.limits.memory=8Gi"),
        ),
        (("image.repository=reg/a:v1",), ("reg/a:v1", "image.tag")),
        (("image.repository=reg/Finetune",), ("reg/Finetune", "lower case")),
        (("image.repository=reg/fine tune",), ("reg/fine tune",)),
        (("podSpec.containers=x",), ("podSpec.containers",)),
        (("podSpec.hostNetwork=true",), ("podSpec.hostNetwork", "restricted")),
        (("podSecurityContext.runAsNonRoot=false",), ("podSecurityContext.runAsNonRoot",)),
        (
            ("kueue.queueName=q", r"job.labels.kueue\.x-k8s\.io/queue-name=p"),
            ("job.labels", "kueue.queueName=q"),
        ),
        (("cronjob.enabled=true", "cronjob.suspend=false"), ("cronjob.suspend", "cronjob.schedule")),
        (("cronjob.enabled=true", "cronjob.plan=true", *BUCKET), ("cronjob.plan", "cronjob.schedule")),
        (("cronjob.plan=true", *BUCKET), ("cronjob.plan", "cronjob.enabled")),
        ((*PLAN,), ("cronjob.plan", "config.input.uri")),
        ((*PLAN, *BUCKET, "command=validate"), ("cronjob.plan", "command=validate")),
        ((*PLAN, *BUCKET, "cronjob.planImage=reg/Finetune"), ("cronjob.planImage", "reg/Finetune")),
        ((*PLAN, *BUCKET, "cronjob.planImage=reg:5000/finetune"), ("cronjob.planImage", "tag or digest")),
        (("cronjob.planImage=reg/finetune:cpu",), ("cronjob.planImage=reg/finetune:cpu", "cronjob.plan=false")),
        (("cronjob.planNodeSelector.a=b",), ("cronjob.planNodeSelector", "cronjob.plan=false")),
        (("serviceAccount.create=false",), ("serviceAccount.name", "events.enabled")),
        (
            ("serviceAccount.create=false", "serviceAccount.name=x", "serviceAccount.annotations.a=b"),
            ("serviceAccount.annotations",),
        ),
        (("cronjob.schedule=0 3 * * *",), ("cronjob.schedule", "cronjob.enabled")),
        (("image.repository=null",), ("image.repository",)),
        (("arguments={gs://b/models/latest}",), ("arguments", "command=run", "config")),
        (("command=predict",), ("arguments", "command=predict")),
    ],
)
def test_mistakes_of_several_values(helm: Helm, settings: tuple[str, ...], keys: tuple[str, ...]) -> None:
    """Combinations of values that contradict each other are rejected, and the message names the keys."""
    message = helm.refusal(*settings)

    assert [] == [key for key in keys if key not in message]


def test_a_prefix_is_not_a_folder(helm: Helm) -> None:
    """gs://b/x2 is not inside gs://b/x."""
    helm.render("config.input.uri=gs://b/x", "config.output.uri=gs://b/x2")


@pytest.mark.parametrize(
    "setting",
    [
        "gpu.cuont=1",
        "config.fine_tuning.epoch=3",
        "config.fine_tuning.epochs=-1",
        "config.keep=newest",
        "config.fine_tuning.learning_rate=small",
        "config.run.job_uid=x",
        "image.pullPolicy=Sometimes",
        "image.digest=sha256:12",
        "command=train",
        "gpu.count=-1",
        "gpu.sharedMemory=lots",
        "workers=0",
        "workers=-1",
        "workers=1.5",
        "workers=two",
        "workers=257",
        "config.workers.count=2",
        "cache.sizeLimit=lots",
        "config.gate.min_accuracy=1.5",
        "config.input.validation_fraction=20",
        "config.model.dropout=1",
    ],
)
def test_wrong_values_are_refused_by_the_schema(helm: Helm, setting: str) -> None:
    """A misspelt or impossible value is rejected before anything is rendered."""
    assert "values don't meet the specifications of the schema" in helm.refusal(setting)


@pytest.mark.newest_helm  # Helm 3 asks a cluster before it shows the notes, dry run or not
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            (),
            (
                "config.input.uri=gs://",
                "config.output.uri=gs://",
                "image.repository",
                "serviceAccount",
                "watch finetune-",
            ),
        ),
        (BUCKET, ("gs://b/models/latest.json", "helm test finetune")),
        (("spot=true", "terminationGracePeriodSeconds=60"), ("WARNING: terminationGracePeriodSeconds=60",)),
        (("cronjob.enabled=true",), ("--from=cronjob/finetune", "suspended")),
        (("cronjob.enabled=true", "cronjob.schedule=@daily", "config.run.id=x"), ("WARNING: config.run.id=x",)),
        ((*PLAN, *BUCKET), ("--from=cronjob/finetune-plan", "--from=cronjob/finetune\n", "@daily", "without a GPU")),
        (("image.pullPolicy=Always",), ("WARNING: image.pullPolicy",)),
        (("gpu.count=0", *BUCKET), ("WARNING: gpu.count=0",)),
        ((), ("WARNING: image.repository=finetune names no registry",)),
        (("cache.type=ephemeral",), ("its volume of 20Gi until its Job is deleted: kubectl", "delete job finetune-")),
        (("cache.type=ephemeral", "cronjob.enabled=true"), ("until its Job is deleted, 86400 seconds",)),
        (("cache.type=existingClaim", "cache.existingClaim=pvc"), ("pvc is in one zone",)),
    ],
)
def test_notes(helm: Helm, settings: tuple[str, ...], said: tuple[str, ...]) -> None:
    """The notes name the next commands, and warn of doubtful values."""
    arguments = [part for setting in settings for part in ("--set", setting)]
    done = helm.run("install", "finetune", CHART, "--dry-run=client", *arguments)

    assert [] == [text for text in said if text not in done.stdout.partition("NOTES:")[2]]


# What Helm does to values


def test_numbers_keep_their_digits(helm: Helm, tmp_path: Path) -> None:
    """Numbers of a values file, which are floats to Helm, arrive digit by digit, and the job takes them."""
    values = """
image: {tag: 5176135}
config: {run: {seed: 1000000, id: 20261125}, input: {max_pixels: 100000000}}
cache: {sizeLimit: 53687091200}
resources: {limits: {memory: 8589934592, ephemeral-storage: 107374182400}}
extraEnv: [{name: N, value: 12345678}]
podLabels: {build: 5176135}
"""
    found = helm.render(values=values, tmp_path=tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(found.settings_file)

    settings = load_settings(["--config", str(file)], {}).settings

    assert "finetune:5176135" == found.container["image"]
    assert (1000000, "20261125", 100000000) == (settings.run.seed, settings.run.id, settings.input.max_pixels)
    assert settings.cache.max_bytes == 40265318400
    assert "5176135" == found.job["spec"]["template"]["metadata"]["labels"]["build"]
    assert not re.search(r"[0-9]e\+", found.text)
    assert "finetune:5176135" == helm.render("image.tag=5176135").container["image"]
    assert "finetune:1e6" == helm.render("image.tag=1e6").container["image"]


def test_defaults_load(helm: Helm, tmp_path: Path) -> None:
    """The job takes the settings file of the chart as it is, with small numbers as well."""
    file = tmp_path / "config.yaml"
    file.write_text(helm.render("config.fine_tuning.learning_rate=0.0000001").settings_file)

    settings = load_settings(["--config", str(file)], {}, required=("output.uri",)).settings

    assert (1e-7, True, True) == (
        settings.fine_tuning.learning_rate, settings.device.require_gpu, settings.events.enabled
    )  # fmt: skip


@pytest.mark.parametrize("name", [name for name in names(VALUES) if name not in {"image", "image.repository"}])
def test_null_drops_a_default(helm: Helm, name: str) -> None:
    """Any value may be dropped with null; what is dropped is absent, never "null"."""
    found = helm.render(f"{name}=null")

    assert not re.search(r":\s*(null|~|<no value>)\s*$", found.text, re.MULTILINE)
    assert found.job["spec"]["template"]["spec"]["containers"]
    if name == "resources.limits.cpu":
        assert "cpu" not in found.container["resources"]["limits"]


def test_image_cannot_be_dropped(helm: Helm) -> None:
    """The image's repository cannot be dropped: the error names the value."""
    assert "image.repository" in helm.refusal("image=null")


def test_as_a_subchart(helm: Helm, tmp_path: Path) -> None:
    """The schema accepts a parent chart's condition and globals."""
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "finetune")
    (parent / "Chart.yaml").write_text(
        "apiVersion: v2\nname: parent\nversion: 0.1.0\n"
        "dependencies: [{name: finetune, version: 0.1.0, condition: finetune.enabled}]\n"
    )
    values = {"global": {"x": {"y": 1}}, "finetune": {"enabled": True, "config": {"run": {"seed": 3}}}}
    (parent / "values.yaml").write_text(json.dumps(values))

    found = Rendered(helm.template(chart=parent).stdout)

    assert 3 == found.config["run"]["seed"]


@pytest.mark.parametrize(
    "name", [name for name, value in VALUES.items() if isinstance(value, dict) and name != "image"]
)
def test_values_of_an_older_chart(helm: Helm, tmp_path: Path, name: str) -> None:
    """`--reuse-values` brings the values of a chart that did not have a group yet: it renders all the same."""
    chart = shutil.copytree(CHART, tmp_path / "helm")
    (chart / "values.yaml").write_text(yaml.safe_dump({key: value for key, value in VALUES.items() if key != name}))

    assert Rendered(helm.template(chart=chart).stdout).container


def test_install_command_of_the_readme(helm: Helm) -> None:
    """The README's `helm install` renders, with its image, its places and a GPU; `gpu.count=0` takes the GPU away."""
    _, _, release, chart, *flags = readme.command("helm install").split()
    settings = [flag for flag in flags if flag != "--set"]

    found = helm.render(*settings)

    assert ("finetune", "./helm") == (release, chart)
    assert "REGISTRY/finetune:TAG" == found.container["image"]
    assert {"uri": "gs://BUCKET/pictures"} == found.config["input"]
    assert {"uri": "gs://BUCKET/models"} == found.config["output"]
    assert "nvidia.com/gpu" in found.container["resources"]["limits"]
    assert "nvidia.com/gpu" not in helm.render(*settings, "gpu.count=0").container["resources"]["limits"]
