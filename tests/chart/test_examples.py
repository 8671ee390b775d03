"""examples/: what the chart renders of each file, and what the pages promise of it.

Argo CD, Flux, helmfile, Kueue, JobSet and Kubeflow Trainer are not installed here: of their files the tests read what
concerns the chart, and evaluate Go templates by Helm, which has the same functions.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts import CHART, ROOT, Rendered

from job.config.load import load_settings

if TYPE_CHECKING:
    from charts import Helm

EXAMPLES = ROOT / "examples"
MANY = EXAMPLES / "many-data-sets"
VALUES = sorted((EXAMPLES / "values").glob("*.yaml"))
PAGES = [ROOT / "docs" / name for name in ("clusters.md", "gitops.md", "gke.md", "image.md", "operations.md")]


def documents(path: Path) -> dict[str, Any]:
    """Return the documents of a file by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(path.read_text())}


@cache
def rendered(helm: Helm, name: str) -> Rendered:
    """Return what the chart renders with one of the values files."""
    return Rendered(helm.template("--values", EXAMPLES / "values" / f"{name}.yaml").stdout)


def evaluated(helm: Helm, folder: Path, template: str, context: dict[str, Any]) -> str:
    """Return what a Go template makes of a context."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: evaluate\nversion: 0.0.0\n")
    (folder / "template.txt").write_text(template)
    (folder / "values.yaml").write_text(yaml.safe_dump({"context": context}))
    text = '{{ tpl (.Files.Get "template.txt") .Values.context | toJson }}'
    (folder / "templates/text.yaml").write_text(f"apiVersion: v1\nkind: ConfigMap\ndata: {{text: {text}}}\n")
    return str(yaml.safe_load(helm.run("template", "x", folder).stdout)["data"]["text"])


# Values files


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_values_render_and_the_job_takes_them(helm: Helm, tmp_path: Path, path: Path) -> None:
    """Each values file renders, names an image in a registry, and its settings are valid."""
    found = rendered(helm, path.stem)
    (tmp_path / "config.yaml").write_text(found.settings_file)

    settings = load_settings(["--config", str(tmp_path / "config.yaml")], {}).settings

    assert re.fullmatch(r"[a-z0-9.:-]+/\S+/finetune:0\.1\.0", found.container["image"])
    assert settings.input.uri
    assert settings.output.uri
    gpus = sum(number for name, number in found.container["resources"]["limits"].items() if "nvidia" in name)
    assert gpus == (4 if path.stem == "several-gpus" else 1)


def test_autopilot(helm: Helm) -> None:
    """Requests are the limits, and GPU and Spot are node selectors."""
    found = rendered(helm, "autopilot")
    requests, limits = (found.container["resources"][kind] for kind in ("requests", "limits"))

    assert {name: value for name, value in limits.items() if "/" not in name} == requests
    selector = {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-spot": "true"}
    assert selector == found.pod["nodeSelector"]


@pytest.mark.parametrize(
    ("name", "resource", "selector"),
    [
        ("nvidia-operator", "nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-L4"}),
        ("mig-single", "nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"}),
        ("mig-mixed", "nvidia.com/mig-1g.10gb", None),
        ("time-slicing", "nvidia.com/gpu", {"nvidia.com/gpu.product": "NVIDIA-L4-SHARED"}),
    ],
)
def test_nvidia(helm: Helm, name: str, resource: str, selector: dict[str, str] | None) -> None:
    """The operator's runtime class, the resource and the product's label choose GPU, slice or share."""
    found = rendered(helm, name)

    assert 1 == found.container["resources"]["limits"][resource]
    assert ("nvidia", selector) == (found.pod["runtimeClassName"], found.pod.get("nodeSelector"))


def test_openshift(helm: Helm) -> None:
    """Neither user nor groups are given, so that the platform assigns them."""
    assert {"runAsNonRoot", "seccompProfile", "fsGroupChangePolicy"} == set(
        rendered(helm, "openshift").pod["securityContext"]
    )


@pytest.mark.parametrize(("name", "seconds"), [("spot", 15), ("spot-120s", 60), ("spot-elsewhere", 60)])
def test_spot(helm: Helm, name: str, seconds: int) -> None:
    """The grace period is at most what the node grants, and the label of GKE is on GKE alone."""
    pod = rendered(helm, name).pod
    kubelet = yaml.safe_load((EXAMPLES / "spot/node-config.yaml").read_text())["kubeletConfig"]

    assert seconds == pod["terminationGracePeriodSeconds"]
    assert seconds <= kubelet["shutdownGracePeriodSeconds"] - kubelet["shutdownGracePeriodCriticalPodsSeconds"]
    assert (name == "spot-elsewhere") == ("cloud.google.com/gke-spot" not in pod["nodeSelector"])


@pytest.mark.parametrize("name", ["volumes", "gcs-fuse", "federation"])
def test_mounted_paths(helm: Helm, name: str) -> None:
    """Each extra volume is mounted, read-only unless it is the output, in the test Pod as well."""
    found = rendered(helm, name)
    given = yaml.safe_load((EXAMPLES / "values" / f"{name}.yaml").read_text())

    for pod in (found.pod, found.objects["test"]["spec"]):
        mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
        for volume in given["extraVolumes"]:
            assert volume in pod["volumes"]
            assert (volume["name"] != "models") == mounts[volume["name"]].get("readOnly", False)


def test_gcs_fuse(helm: Helm) -> None:
    """The annotation is a text, the pictures are read through the mount, and the output is the bucket itself."""
    found = rendered(helm, "gcs-fuse")

    for metadata in (found.job["spec"]["template"]["metadata"], found.objects["test"]["metadata"]):
        assert "true" == metadata["annotations"]["gke-gcsfuse/volumes"]
    assert ("/pictures", "gs://my-bucket/models") == (found.config["input"]["uri"], found.config["output"]["uri"])


def test_federation(helm: Helm) -> None:
    """The credentials' file and the token that it names are in the mounted volume."""
    found = rendered(helm, "federation")
    [mount] = [one for one in found.container["volumeMounts"] if one["name"] == "federation"]
    [name] = [one["value"] for one in found.container["env"] if one["name"] == "GOOGLE_APPLICATION_CREDENTIALS"]
    page = (ROOT / "docs/clusters.md").read_text()

    assert f"{mount['mountPath']}/credentials.json" == name
    assert f"--credential-source-file {mount['mountPath']}/token" in page


def test_private_cluster(helm: Helm) -> None:
    """Google's restricted VIP, the metadata server and the API server can be reached, and nothing else."""
    egress = rendered(helm, "private-cluster").objects["NetworkPolicy"]["spec"]["egress"]
    to = [rule["to"][0]["ipBlock"]["cidr"] for rule in egress if "to" in rule]

    assert ["199.36.153.4/30", "169.254.169.254/32", "172.16.0.2/32"] == to


@pytest.mark.parametrize(("name", "file"), [("kueue", "queues.yaml"), ("kueue-flex-start", "flex-start.yaml")])
def test_kueue(helm: Helm, name: str, file: str) -> None:
    """The Job's queue and priority exist, and the queue covers all that the Pod requests."""
    found, queues = rendered(helm, name), documents(EXAMPLES / "kueue" / file)
    labels = found.job["metadata"]["labels"]
    [group] = queues["ClusterQueue"]["spec"]["resourceGroups"]
    resources = found.container["resources"]

    assert labels["kueue.x-k8s.io/queue-name"] == queues["LocalQueue"]["metadata"]["name"]
    assert queues["LocalQueue"]["spec"]["clusterQueue"] == queues["ClusterQueue"]["metadata"]["name"]
    assert {*resources["requests"], *resources["limits"]} <= set(group["coveredResources"])
    [flavor] = group["flavors"]
    assert queues["ResourceFlavor"]["metadata"]["name"] == flavor["name"]
    assert group["coveredResources"] == [resource["name"] for resource in flavor["resources"]]
    if name == "kueue":
        assert queues["WorkloadPriorityClass"]["metadata"]["name"] == labels["kueue.x-k8s.io/priority-class"]
        assert "43200" == labels["kueue.x-k8s.io/max-exec-time-seconds"]
    else:
        [check] = queues["ClusterQueue"]["spec"]["admissionChecksStrategy"]["admissionChecks"]
        assert queues["AdmissionCheck"]["metadata"]["name"] == check["name"]
        config = queues["ProvisioningRequestConfig"]
        assert queues["AdmissionCheck"]["spec"]["parameters"]["name"] == config["metadata"]["name"]
        assert "14400" == found.job["metadata"]["annotations"]["provreq.kueue.x-k8s.io/maxRunDurationSeconds"]


# Several GPUs and several Pods


def test_several_gpus(helm: Helm) -> None:
    """One Pod has all GPUs, and shared memory for them beside what TensorFlow needs."""
    found = rendered(helm, "several-gpus")

    assert "Job" in found.objects
    assert "completions" not in found.job["spec"]
    assert "1Gi" == next(one for one in found.pod["volumes"] if one["name"] == "shared-memory")["emptyDir"]["sizeLimit"]


def test_workers(helm: Helm) -> None:
    """The queue of examples/kueue can admit all Pods at once; they spread over the nodes of one zone."""
    found, queues = rendered(helm, "workers"), documents(EXAMPLES / "kueue/queues.yaml")
    [group] = queues["ClusterQueue"]["spec"]["resourceGroups"]
    quota = {one["name"]: str(one["nominalQuota"]) for one in group["flavors"][0]["resources"]}
    requested = found.container["resources"]["limits"] | found.container["resources"]["requests"]

    assert 4 == found.job["spec"]["completions"]
    for name, amount in requested.items():
        number, unit = re.fullmatch(r"(\d+)(\w*)", str(amount)).groups()
        assert quota[name].endswith(unit)
        assert 4 * int(number) <= int(quota[name].removesuffix(unit))
    [spread] = found.pod["topologySpreadConstraints"]
    labels = found.job["spec"]["template"]["metadata"]["labels"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
    assert "topology.kubernetes.io/zone" in found.pod["nodeSelector"]


WORKERS = ("workers=2", "config.input.uri=gs://my-bucket/pictures", "config.output.uri=gs://my-bucket/models")


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """Return the variables of a container, a value or its source by name."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_jobset(helm: Helm) -> None:
    """The JobSet's Job is the chart's; JobSet calls a Pod JOBSET-JOB-0-INDEX, under the JobSet's subdomain."""
    jobset, policy = yaml.safe_load_all((EXAMPLES / "jobset/jobset.yaml").read_text())
    [replicated] = jobset["spec"]["replicatedJobs"]
    spec, network = replicated["template"]["spec"], jobset["spec"]["network"]
    [container] = spec["template"]["spec"]["containers"]
    of_chart = helm.render(*WORKERS)

    for field in ("completionMode", "completions", "parallelism", "backoffLimitPerIndex", "podFailurePolicy"):
        assert of_chart.job["spec"][field] == spec[field]
    for field in ("args", "resources", "securityContext", "ports"):
        assert of_chart.container[field] == container[field]
    assert 1 == replicated["replicas"]
    assert network["publishNotReadyAddresses"] is True
    names = [f"$(FINETUNE_RUN__JOB_NAME)-{index}.{network['subdomain']}:2222" for index in range(2)]
    assert names == variables(container)["FINETUNE_WORKERS__ADDRESSES"].split(",")
    labels = {"jobset.sigs.k8s.io/jobset-name": jobset["metadata"]["name"]}
    assert labels == policy["spec"]["podSelector"]["matchLabels"]
    assert [{"podSelector": {"matchLabels": labels}}] == policy["spec"]["ingress"][0]["from"]


def test_trainjob() -> None:
    """Runtime and TrainJob have the names that Kubeflow Trainer expects; together they are valid settings."""
    runtime = documents(EXAMPLES / "trainjob/runtime.yaml")["TrainingRuntime"]
    found = documents(EXAMPLES / "trainjob/trainjob.yaml")
    trainer, name = found["TrainJob"]["spec"]["trainer"], found["TrainJob"]["metadata"]["name"]
    [replicated] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    [container] = spec["template"]["spec"]["containers"]

    assert ["node", "node", 1] == [replicated["name"], container["name"], replicated["replicas"]]
    label = "trainer.kubeflow.org/trainjob-ancestor-step"
    assert {label: "trainer"} == replicated["template"]["metadata"]["labels"]
    assert runtime["metadata"]["name"] == found["TrainJob"]["spec"]["runtimeRef"]["name"]
    assert {"node"} == {
        rule["onExitCodes"]["containerName"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule
    }
    own, given = variables(container), variables(trainer)
    assert str(trainer["numNodes"]) == given["FINETUNE_WORKERS__COUNT"]
    names = [f"$(FINETUNE_RUN__JOB_NAME)-{index}.{name}:2222" for index in range(trainer["numNodes"])]
    assert names == given["FINETUNE_WORKERS__ADDRESSES"].split(",")
    assert "FINETUNE_RUN__JOB_NAME" in own
    plain = {key: value for key, value in own.items() if isinstance(value, str)}
    settings = load_settings(trainer["args"][1:], plain).settings
    assert ("gs://my-bucket/pictures", "gs://my-bucket/models") == (settings.input.uri, settings.output.uri)
    assert ("/cache", True) == (settings.cache.dir, settings.device.require_gpu)
    assert name == found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]["jobset.sigs.k8s.io/jobset-name"]


# GitOps


def gitops_values(name: str) -> dict[str, Any]:
    """Return the chart's values in a file of examples/gitops."""
    found = documents(EXAMPLES / "gitops" / f"{name}.yaml")
    if name == "flux":
        return dict(found["HelmRelease"]["spec"]["values"])
    return dict(found["Application"]["spec"]["source"]["helm"]["valuesObject"])


@pytest.mark.parametrize("name", ["argocd", "flux"])
def test_gitops(helm: Helm, tmp_path: Path, name: str) -> None:
    """Both deploy a CronJob without TTL, of the same data set."""
    found = helm.render(values=yaml.safe_dump(gitops_values(name)), tmp_path=tmp_path)

    assert "0 3 * * *" == found.objects["CronJob"]["spec"]["schedule"]
    assert "ttlSecondsAfterFinished" not in found.job["spec"]
    assert gitops_values("argocd") == gitops_values("flux")


def test_argocd_prunes() -> None:
    """What Git no longer has is deleted: an old Job would wait for the new one's claim."""
    spec = documents(EXAMPLES / "gitops/argocd.yaml")["Application"]["spec"]

    assert {"prune": True, "selfHeal": True} == spec["syncPolicy"]["automated"]
    assert CHART == ROOT / spec["source"]["path"]


def test_flux_waits_for_no_job() -> None:
    """A training that takes longer than Flux's timeout is not rolled back; the chart is the one of the source."""
    found = documents(EXAMPLES / "gitops/flux.yaml")
    spec = found["HelmRelease"]["spec"]

    assert [True, True] == [spec[action]["disableWaitForJobs"] for action in ("install", "upgrade")]
    assert {"kind": "OCIRepository", "name": found["OCIRepository"]["metadata"]["name"]} == spec["chartRef"]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert version == found["OCIRepository"]["spec"]["ref"]["tag"]


# Many data sets


@cache
def releases_of_argocd(helm: Helm) -> dict[str, Rendered]:
    """Return release -> what the chart renders of it, as the ApplicationSet deploys it."""
    source = documents(MANY / "applicationset.yaml")["ApplicationSet"]["spec"]["template"]["spec"]["source"]
    entries = yaml.safe_load((MANY / "data-sets.yaml").read_text())
    fields = "\n===\n".join(source["helm"][name] for name in ("releaseName", "values"))
    found = {}
    with TemporaryDirectory() as folder:
        text = evaluated(
            helm, Path(folder, "chart"), f"{{{{ range .entries }}}}{fields}\n---\n{{{{ end }}}}", {"entries": entries}
        )
        files = [ROOT / source["path"] / name for name in source["helm"]["valueFiles"]]
        for one in text.split("\n---\n")[:-1]:
            release, values = one.split("\n===\n")
            (own := Path(folder, "values.yaml")).write_text(values)
            flags = [part for file in [*files, own] for part in ("--values", file)]
            found[release] = Rendered(helm.run("template", release, CHART, *flags, "--namespace", "ml").stdout)
    return found


def releases_of_helmfile(helm: Helm, folder: Path) -> dict[str, Rendered]:
    """Return release -> what the chart renders of it, as helmfile deploys it."""
    environment, template = (MANY / "helmfile.yaml.gotmpl").read_text().split("\n---\n")
    values = environment.replace(
        '{{ readFile "data-sets.yaml" | indent 10 }}',
        "\n".join(f"{' ' * 10}{line}" for line in (MANY / "data-sets.yaml").read_text().splitlines()),
    )
    [context] = yaml.safe_load(values)["environments"]["default"]["values"]
    found = {}
    for release in yaml.safe_load(evaluated(helm, folder / "chart", template, {"Values": context}))["releases"]:
        common, own = release["values"]
        (folder / "values.yaml").write_text(yaml.safe_dump(own))
        assert CHART == (MANY / release["chart"]).resolve()
        flags = ["--values", MANY / common, "--values", folder / "values.yaml", "--namespace", release["namespace"]]
        found[release["name"]] = Rendered(helm.run("template", release["name"], CHART, *flags).stdout)
    return found


def test_many_data_sets(helm: Helm) -> None:
    """Each data set is a CronJob with a name, an output and a schedule of its own; all share one ServiceAccount."""
    found = releases_of_argocd(helm)
    entries = {entry["name"]: entry for entry in yaml.safe_load((MANY / "data-sets.yaml").read_text())}
    account = documents(MANY / "service-account.yaml")["ServiceAccount"]["metadata"]

    assert len(entries) == len(found) >= 3
    objects = [(kind, one["metadata"]["name"]) for release in found.values() for kind, one in release.objects.items()]
    assert len(objects) == len(set(objects))
    assert len(found) == len({release.config["output"]["uri"] for release in found.values()})
    for name, release in found.items():
        assert f"{name}-finetune" == release.objects["CronJob"]["metadata"]["name"]
        assert entries[name]["schedule"] == release.objects["CronJob"]["spec"]["schedule"]
        assert entries[name]["input"] == release.config["input"]["uri"]
        assert entries[name].get("minAccuracy", 0.9) == release.config["gate"]["min_accuracy"]
        assert "ServiceAccount" not in release.objects
        assert account["name"] == release.pod["serviceAccountName"]
        [subject] = release.objects["RoleBinding"]["subjects"]
        assert (account["name"], account["namespace"]) == (subject["name"], subject["namespace"])


def test_argocd_and_helmfile_deploy_the_same(helm: Helm, tmp_path: Path) -> None:
    """Both ways render the same releases."""
    argocd, helmfile = releases_of_argocd(helm), releases_of_helmfile(helm, tmp_path)

    assert {name: release.objects for name, release in argocd.items()} == {
        name: release.objects for name, release in helmfile.items()
    }


# Pages


def test_every_example_is_in_a_page() -> None:
    """Each file of examples/ is linked from a page."""
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if "://" not in link
    }

    assert [] == [path for path in EXAMPLES.rglob("*") if path.is_file() and path not in linked]


def test_a_packaged_chart_is_the_same(helm: Helm, tmp_path: Path) -> None:
    """What `helm package` makes renders what the folder does, and has the chart's metadata."""
    helm.run("package", CHART, "--destination", tmp_path)
    [package] = tmp_path.glob("finetune-*.tgz")

    assert helm.template().stdout == helm.run("template", "finetune", package).stdout
    chart = yaml.safe_load(helm.run("show", "chart", package).stdout)
    assert "Apache-2.0" == chart["annotations"]["artifacthub.io/license"]
    assert "image-classification" in chart["keywords"]
