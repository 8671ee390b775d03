"""The chart's files that follow from the code. No helm is needed for these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from job import __version__, errors
from job.config import reference

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def test_every_value_is_documented() -> None:
    """values.yaml is the manual: each key has a comment, or stands in a group whose comment is its own."""
    rows = re.findall(r"^\| `([^`]+)` \| .* \| (.*) \|$", (CHART / "README.md").read_text(), re.MULTILINE)

    assert [] == [name for name, meaning in rows if not meaning]
    top = {name.partition(".")[0] for name, _ in rows}
    assert set(VALUES) == top


def dotted(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Return the dotted names of all values that a document sets, groups as well."""
    found = set()
    for key, value in values.items():
        found |= {prefix + key, *(dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else ())}
    return found


def exists(name: str) -> bool:
    """Return whether the chart's schema has a value; below a map with free keys, any."""
    node = SCHEMA
    for part in name.split("."):
        if "properties" not in node:
            return "object" in node["type"]
        if part not in node["properties"]:
            return False
        node = node["properties"][part]
    return True


@pytest.mark.parametrize("page", ["clusters.md", "gitops.md", "gke.md", "operations.md"])
def test_values_that_a_page_names(page: str) -> None:
    """Every value of the chart that a page names exists: in its running text, and in its values files."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    named = {name for block in blocks if block.keys() <= VALUES.keys() for name in dotted(block)}
    for span in re.findall(r"`([^`\n]+)`", prose):
        found = re.match(r"([A-Za-z]+)((?:\.[A-Za-z_]+)*)(?::|=|$)", span)
        if found and found[1] in VALUES and (found[2] or ":" in span) and not span.endswith((".json", ".yaml")):
            named.add(found[1] + found[2])
    # The job's settings, which a page names without `config.`, and events of its log.
    others = {row.name for row in reference.rows()} | {"cache.reused", "job.exists", "job.record_unreadable"}

    assert named
    assert [] == sorted(name for name in named - others if not exists(name))


def test_schema_is_closed_but_for_what_helm_adds() -> None:
    """A misspelt value is refused; `global` and a parent's `enabled` are not."""
    assert SCHEMA["additionalProperties"] is False
    assert {"global", "enabled", *VALUES} == set(SCHEMA["properties"])
    assert SCHEMA["properties"]["config"]["additionalProperties"] is False


def test_schema_has_every_setting_but_the_charts_own() -> None:
    """Under `config` stand the job's settings, all but those that the chart fills in."""
    groups = SCHEMA["properties"]["config"]["properties"]
    found = {
        f"{name}.{inner}" if "properties" in group else name
        for name, group in groups.items()
        for inner in group.get("properties", [""])
    }

    settings = {row.name for row in reference.rows()}
    of_the_job = {f"run.{name}" for name in ("job_uid", "job_name", "namespace", "node", "image")} | {
        "cache.volume_limit_bytes"
    }
    assert settings - found == of_the_job | {name for name in settings if name.startswith(("events.", "workers."))}
    assert found <= settings


def test_failure_policy_is_that_of_the_exit_codes() -> None:
    """The podFailurePolicy has the action of job/errors.py for each exit code; disruptions by the node are first."""
    template = (CHART / "templates/_pod_failure_policy.tpl").read_text()
    body = re.sub(r"\{\{.*?\}\}", "", template, flags=re.DOTALL)

    first, *rest = yaml.safe_load(body)["rules"]

    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} == first
    assert {"finetune"} == {rule["onExitCodes"]["containerName"] for rule in rest}
    expected: dict[str, list[int]] = {}
    for code, (_, action) in errors.exit_codes().items():
        expected.setdefault(action, []).append(code)
    assert {action: expected[action] for action in ("Ignore", "FailJob")} == {
        rule["action"]: rule["onExitCodes"]["values"] for rule in rest
    }


def test_chart_is_of_the_jobs_version() -> None:
    """An empty image.tag means the image of this version."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (__version__, __version__) == (chart["version"], chart["appVersion"])
