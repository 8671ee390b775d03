"""What in helm/ and k8s/ follows from the job's code and from helm/values.yaml, for scripts/generate.py.

    helm/values.yaml                          the section "config", from job/config/settings.py
    helm/values.schema.json                   from job/config/settings.py and helm/values.yaml
    helm/README.md                            the table of values, from helm/values.yaml
    helm/Chart.yaml                           appVersion, from job/__init__.py
    helm/templates/_pod_failure_policy.tpl    from job/errors.py
    k8s/                                      from the chart, which helm renders

A value's documentation is the comment above it; a line ``@schema {…}`` in it says what its default does not.
"""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from job import __version__, errors
from job.config import reference
from job.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
HELM = ROOT / "helm"
K8S = ROOT / "k8s"

Document = dict[str, Any]

MANAGED = {*reference.SET_BY_CHART, "events", "workers"}
"""Set by the chart itself, so they are not values."""

SHOWN = {"input.uri", "output.uri"}
"""Settings that nearly everyone changes: values in values.yaml; the others are comments there."""

COMPUTED = {
    "device.require_gpu": "Unset: true if gpu.count is above 0.",
    "cache.dir": "Unset: /cache, the volume that `cache` describes.",
    "cache.max_bytes": "Unset: three quarters of cache.sizeLimit.",
}
"""Settings whose default in the chart differs from the job's."""

SETTINGS = "finetune/config.yaml"
"""The annotation of the chart's Pods that is their settings file."""

OPENING = """\
  # Generated from job/config/settings.py up to the end of this section. A setting that is not set here has the default
  # of the job in the image, also if image and chart are of different versions.
"""


def chart() -> dict[Path, str]:
    """Return the generated files of helm/."""
    return {
        HELM / "Chart.yaml": chart_yaml(),
        HELM / "values.yaml": values_yaml(),
        HELM / "values.schema.json": values_schema(),
        HELM / "README.md": readme(),
        HELM / "templates/_pod_failure_policy.tpl": pod_failure_policy(),
    }


# values.yaml


def config_section() -> str:
    """Return the section "config" of values.yaml, from its key on."""
    lines = ["config:\n" + OPENING]
    group = ""
    for row in reference.rows():
        head, _, name = row.name.rpartition(".")
        if row.name in MANAGED or head in MANAGED:
            continue
        if head and head != group:
            group = head
            doc = Settings.model_fields[head].annotation.__doc__ or ""  # a group is a model
            lines.append(f"\n{_comment(doc.splitlines()[0], 2)}  {head}:\n")
        elif not head:
            group = ""
            lines.append("\n")
        indent = 4 if head else 2
        lines.append(_comment(f"{row.meaning} {COMPUTED.get(row.name, '')}".strip(), indent))
        mark = "" if row.name in SHOWN else "# "
        lines.append(f"{' ' * indent}{mark}{name}: {row.default}\n")
    return "".join(lines)


def values_yaml() -> str:
    """Return values.yaml with its section "config" as it should be."""
    text = (HELM / "values.yaml").read_text()
    return re.sub(r"^config:.*?(?=^gpu:)", lambda _: f"{config_section()}\n", text, flags=re.MULTILINE | re.DOTALL)


def _comment(text: str, indent: int) -> str:
    prefix = f"{' ' * indent}# "
    return textwrap.fill(text, 120, initial_indent=prefix, subsequent_indent=prefix, break_on_hyphens=False) + "\n"


class Value:
    """One value of the chart: its dotted name, what its comment says, its default and its children.

    Args:
        name: dotted.
        node: its default, as YAML.
        comment: the lines above it, without the marks.
    """

    def __init__(self, name: str, node: yaml.Node, comment: list[str]) -> None:
        self.name = name
        self.default: Any = yaml.safe_load(yaml.serialize(node))
        self.doc = " ".join(line for line in comment if not line.startswith("@schema "))
        self.children: list[Value] = []
        self.schema: Document = {}
        for line in comment:
            if line.startswith("@schema "):
                self.schema |= json.loads(line.removeprefix("@schema "))


def values(text: str) -> list[Value]:
    """Return the chart's own top-level values; "config" has none of its children here."""
    lines = text.splitlines()

    def read(node: yaml.Node | None, prefix: str) -> Iterator[Value]:
        assert isinstance(node, yaml.MappingNode)
        for key, child in node.value:
            comment: list[str] = []
            line = key.start_mark.line - 1
            while line >= 0 and lines[line].lstrip().startswith("#"):
                comment.insert(0, lines[line].lstrip().removeprefix("#").strip())
                line -= 1
            value = Value(prefix + key.value, child, comment)
            if isinstance(child, yaml.MappingNode) and value.name != "config":
                value.children = list(read(child, f"{value.name}."))
                for inner in value.children:  # a group's comment is its switch's as well
                    inner.doc = inner.doc or value.doc
            yield value

    return list(read(yaml.compose(text, Loader=yaml.SafeLoader), ""))


# values.schema.json


def values_schema() -> str:
    """Return values.schema.json: closed, but for what Helm and a parent chart add."""
    properties = {value.name: _schema(value) for value in values(values_yaml())}
    properties["config"] = config_schema()
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart finetune",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": {"description": "What a parent chart shares with all of its charts. Not used here."},
            "enabled": {"description": "A parent chart's condition for this one. Not used here.", "type": "boolean"},
            **properties,
        },
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _schema(value: Value) -> Document:
    described = {"description": value.doc} if value.doc else {}
    if value.children:
        children = {child.name.rpartition(".")[2]: _schema(child) for child in value.children}
        group = {"type": ["object", "null"], "additionalProperties": False, "properties": children}
        return described | group | value.schema
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    schema = {"type": kinds.get(type(value.default))} | value.schema
    return described | _nullable(schema)


def config_schema() -> Document:
    """Return the schema of the section "config": that of the job's settings file, without references."""
    whole = reference.json_schema()

    def inline(schema: Document, name: str) -> Document:
        if "$ref" in schema:
            schema = whole["$defs"][schema["$ref"].rpartition("/")[2]] | {"default": None}
        choices = [one for one in schema.get("anyOf", ()) if one["type"] != "null"]
        if len(choices) == 1:  # a number or null
            schema = {key: value for key, value in schema.items() if key != "anyOf"} | choices[0]
        dropped = {"title", "default", "changes_result", "$defs", "$schema"}
        kept = {key: value for key, value in schema.items() if key not in dropped}
        if len(choices) > 1:  # a word or a number
            return kept | {"anyOf": [*choices, {"type": "null"}]}
        if "properties" in kept:
            kept["properties"] = {
                key: inline(child, f"{name}{key}.")
                for key, child in kept["properties"].items()
                if f"{name}{key}" not in MANAGED
            }
        elif kept["type"] == "string" and "enum" not in kept:
            kept["type"] = ["string", "integer"]  # a name of digits alone; the template writes it digit by digit
        elif kept["type"] == "number":  # --set makes a text of 0.1 and of 1e-5
            kept |= {"type": ["number", "string"], "pattern": _number_pattern(kept)}
        return _nullable(kept)

    return inline(whole, "")


def _number_pattern(schema: Document) -> str:
    """Return the pattern of a number that arrives as a text: a schema's limits do not apply to texts."""
    fraction = "([0]*[.][0-9]+|[0-9]*[.]?[0-9]+[eE]-[0-9]+)"
    if "exclusiveMaximum" in schema:  # below 1
        return f"^({fraction}|0+)$"
    if schema.get("maximum") == 1:
        return f"^({fraction}|0+|1([.]0*)?)$"
    return "^[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$"


def _nullable(schema: Document) -> Document:
    """Let null, Helm's way to drop a default, pass: Helm 3 validates before it drops them, Helm 4 after."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    schema |= {"type": [kind for kind in kinds if kind] + ["null"]}
    if "enum" in schema:
        schema |= {"enum": [*schema["enum"], None]}
    return schema


# README.md


def readme() -> str:
    """Return helm/README.md with the table of values as it should be."""
    rows = ["| value | default | meaning |", "|---|---|---|"]

    def add(value: Value) -> None:
        if value.children:
            for child in value.children:
                add(child)
            return
        default = "" if value.default is None else json.dumps(value.default, ensure_ascii=False)
        allowed = [json.dumps(one) for one in value.schema.get("enum", ())]
        doc = value.doc + (f" One of: {', '.join(f'`{one}`' for one in allowed)}." if allowed else "")
        rows.append(f"| `{value.name}` | {f'`{default}`' if default else ''} | {_cell(doc)} |")

    for value in values(values_yaml()):
        if value.name != "config":
            add(value)
            continue
        for row in reference.rows():
            if row.name not in MANAGED and row.name.partition(".")[0] not in MANAGED:
                default = "" if row.name in COMPUTED else f"`{row.default}`"
                doc = f"{row.meaning} {COMPUTED.get(row.name, '')}".strip()
                rows.append(f"| `config.{row.name}` | {default} | {_cell(doc)} |")
    text = (HELM / "README.md").read_text()
    head, mark, _ = text.partition("<!-- generated by `make generated` from here on -->\n")
    return head + mark + "\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# templates/_pod_failure_policy.tpl, Chart.yaml


def pod_failure_policy() -> str:
    """Return the template of the Job's podFailurePolicy: what the Job does about each exit code."""
    rules = []
    codes = errors.exit_codes()
    for action in ("Ignore", "FailJob"):
        chosen = [code for code, (_, does) in codes.items() if does == action]
        rules.append(f"  - action: {action}\n    onExitCodes:\n")
        rules.append("      containerName: finetune\n      operator: In\n      values:\n")
        rules += [f"        - {code} # {codes[code][0]}\n" for code in chosen]
    counted = "".join(f"  # {code}: {meaning}\n" for code, (meaning, does) in codes.items() if does == "Count")
    return (
        "{{/* Generated from job/errors.py by `make generated`. A rule for exit codes names its container,\n"
        "or it would apply to sidecars, too. */}}\n"
        '{{- define "finetune.podFailurePolicy" -}}\n'
        "rules:\n"
        "  # First: a disruption by the node is not a failure of the Pod, whatever its exit code.\n"
        '  - action: Ignore\n    onPodConditions:\n      - type: DisruptionTarget\n        status: "True"\n'
        + "".join(rules)
        + "  # Everything else counts against backoffLimit:\n"
        + counted
        + "{{- end }}\n"
    )


def chart_yaml() -> str:
    """Return Chart.yaml with the job's version."""
    text = (HELM / "Chart.yaml").read_text()
    return re.sub(r"^appVersion: .*$", f'appVersion: "{__version__}"', text, flags=re.MULTILINE)


# k8s/


def manifests(helm: str) -> dict[Path, str]:
    """Return the files of k8s/: the chart's CronJob for kustomize, and a Job in one file for kubectl create.

    Args:
        helm: the program.
    """
    objects = {document["kind"]: document for document in render(helm, "cronjob.enabled=true")}
    template = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    settings, pod = template["metadata"]["annotations"].pop(SETTINGS), template["spec"]
    # note: no annotation here, since an overlay's config.yaml would be ignored without a word. kustomize makes the
    # ConfigMap from the file, with a name that has a hash, and keeps those of Jobs that are under way.
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "config")
    del volume["downwardAPI"]
    volume["configMap"] = {"name": "finetune-config"}
    names = [kind.lower() for kind in objects]
    image, _, tag = pod["containers"][0]["image"].rpartition(":")
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "default",
        "resources": [f"{name}.yaml" for name in names],
        "configMapGenerator": [
            {"name": "finetune-config", "files": ["config.yaml"], "options": {"immutable": True}},
        ],
        "images": [{"name": image, "newName": image, "newTag": tag}],
    }
    start = "Change it in an overlay of your own: `make generated` overwrites it here.\n"
    return {
        K8S / "kustomization.yaml": to_yaml(
            kustomization,
            "Generated from helm/. Namespace and image are set here, the settings in config.yaml.\n"
            f"{start}kubectl apply -k k8s/ && kubectl create job first --from=cronjob/finetune\n",
        ),
        K8S / "config.yaml": _header("The job's settings: `finetune schema` prints all of them.") + settings,
        **{
            K8S / f"{name}.yaml": to_yaml(document, "Generated from helm/ by `make generated`.\n")
            for name, document in zip(names, objects.values(), strict=True)
        },
        K8S / "job.yaml": _job(helm),
    }


def _job(helm: str) -> str:
    """Return a Job that needs nothing beside it: its settings are flags, and it records no Events."""
    rendered = render(helm, "events.enabled=false", "serviceAccount.create=false")
    objects = {document["kind"]: document for document in rendered}
    job = objects["Job"]
    settings = yaml.safe_load(job["spec"]["template"]["metadata"]["annotations"].pop(SETTINGS))
    job["metadata"]["generateName"] = "finetune-"
    del job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    container["args"] = [
        "run",
        *(f"--{name}={value}" for name, value in flat(settings) if not name.startswith("events.")),
    ]
    for holder, key in ((container, "volumeMounts"), (pod, "volumes")):
        holder[key] = [one for one in holder[key] if one["name"] != "config"]
    head = "Generated from helm/ by `make generated`: one run, without a chart. Set image, input and output, then\n"
    return to_yaml(job, head + "kubectl create -f k8s/job.yaml\n")


def flat(settings: Document) -> Iterator[tuple[str, str]]:
    """Yield the dotted name and the text of each setting of a file."""
    for group, inner in settings.items():
        for name, value in inner.items() if isinstance(inner, dict) else [("", inner)]:
            yield f"{group}.{name}".rstrip("."), str(value).lower() if isinstance(value, bool) else str(value)


def render(helm: str, *settings: str) -> list[Document]:
    """Return the chart's objects without its test, and without what only Helm needs.

    Args:
        helm: the program.
        settings: "key=value".
    """
    # A helm that was built from source takes its Kubernetes for 1.20.
    command = [helm, "template", "finetune", str(HELM), "--namespace", "default", "--kube-version", "1.34.0"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    documents = [
        document for document in documents if "helm.sh/hook" not in document["metadata"].get("annotations", {})
    ]
    for document in documents:
        _drop_helm(document)
    return documents


def _drop_helm(value: Any) -> None:
    """Remove the labels that say that Helm looks after an object, and the namespace, which is kustomize's to give."""
    if isinstance(value, dict):
        for key in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            value.pop(key, None)
        for inner in value.values():
            _drop_helm(inner)
    elif isinstance(value, list):
        for inner in value:
            _drop_helm(inner)


def _header(text: str) -> str:
    return "".join(f"# {line}\n" for line in text.splitlines())


def to_yaml(document: Document, header: str) -> str:
    """Return a document as text, under its header as a comment."""
    return _header(header) + yaml.safe_dump(document, sort_keys=False, width=120)
