"""The chart's alerts: which are rendered, and, by Prometheus' own `promtool`, when each of them fires.

Every series is there twice, as with two replicas of kube-state-metrics.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import prerequisites
import pytest
import yaml
from charts import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from charts import Helm, Rendered

Series = dict[str, str]
"""A series of kube-state-metrics, without the label `instance` -> its values, as promtool writes them."""

CRON = ("alerts.enabled=true", "cronjob.enabled=true", "cronjob.schedule=@daily")
ALL = ["FinetuneJobFailed", "FinetunePodPending", "FinetunePodsFailed", "FinetuneNoSuccess"]
DAY = 24 * 60


def rules(rendered: Rendered) -> list[dict[str, Any]]:
    """Return the rules of a rendering."""
    [group] = rendered.objects["PrometheusRule"]["spec"]["groups"]
    return list(group["rules"])


def owned(job: str, pod: str | None = None) -> Series:
    """Return the series that say who owns a Job, the CronJob, and one of its Pods, the Job."""
    series = {
        f'kube_job_owner{{namespace="default",job_name="{job}",owner_kind="CronJob",owner_name="finetune"}}': "1x99"
    }
    if pod:
        series |= {f'kube_pod_owner{{namespace="default",pod="{pod}",owner_kind="Job",owner_name="{job}"}}': "1x99"}
    return series


def phase(pod: str, name: str, values: str) -> Series:
    """Return the series of a Pod's phase."""
    return {f'kube_pod_status_phase{{namespace="default",pod="{pod}",phase="{name}"}}': values}


def of_job(metric: str, job: str, values: str, **labels: str) -> Series:
    """Return a series of a Job."""
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return {f'{metric}{{namespace="default",job_name="{job}"{more}}}': values}


def of_cronjob(metric: str, values: str, name: str = "finetune") -> Series:
    """Return a series of a CronJob."""
    return {f'{metric}{{namespace="default",cronjob="{name}"}}': values}


@pytest.mark.newest_helm
def test_plan(helm: Helm, tmp_path: Path) -> None:
    """With a plan, its CronJob is the one with the schedule, and its Jobs count as well: the other one is suspended."""
    plan = ("cronjob.plan=true", "config.input.uri=gs://b/in", "config.output.uri=gs://b/out")
    found = rules(helm.render(*CRON, *plan))
    series = {
        **of_cronjob("kube_cronjob_spec_suspend", f"1x{5 * DAY}"),
        **of_cronjob("kube_cronjob_created", f"0x{5 * DAY}", "finetune-plan"),
        **of_cronjob("kube_cronjob_spec_suspend", f"0x{5 * DAY}", "finetune-plan"),
        **of_job("kube_job_owner", "plan-1", f"1x{5 * DAY}", owner_kind="CronJob", owner_name="finetune-plan"),
        **of_job("kube_job_failed", "plan-1", f"1x{5 * DAY}", condition="true"),
    }

    firing = fired(tmp_path, found, series, 4 * DAY)

    assert {("FinetuneNoSuccess", "finetune-plan"), ("FinetuneJobFailed", "plan-1")} == firing


def fired(tmp_path: Path, found: list[dict[str, Any]], series: Series, minutes: int) -> set[tuple[str, str]]:
    """Return (alert, Job or CronJob) of every alert that promtool says is firing at a time.

    Args:
        tmp_path: a folder.
        found: the rules.
        series: what kube-state-metrics reports, one sample a minute.
        minutes: the time.
    """
    if reason := prerequisites.reason_to_skip("promtool"):
        pytest.skip(reason)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "finetune", "rules": found}]}))
    names, subjects = (
        [rule["alert"] for rule in found],
        set(re.findall(r'(?:job_name|cronjob)="([^"]+)"', "".join(series))),
    )
    # promtool compares: an alert that fires without being expected is listed as "got".
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f'{key[:-1]},instance="{instance}"}}', "values": values}
            for key, values in series.items()
            for instance in "ab"
        ],
        "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": []} for name in names],
    }
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    command = ["promtool", "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got:" in said, said
    got = dict(re.findall(r"alertname: (\w+), .*?got:\[(.*?)(?=alertname: |\Z)", said, re.DOTALL))
    return {(name, subject) for name, text in got.items() for subject in subjects if f'"{subject}"' in text}


def test_off_by_default(helm: Helm) -> None:
    """Without the Prometheus Operator the chart can be installed: there is no rule unless it is asked for."""
    assert "PrometheusRule" not in helm.render("cronjob.enabled=true").objects


def test_which_alerts(helm: Helm) -> None:
    """A Job has no alert about a schedule, and an alert without severity is left out."""
    job, cronjob = helm.render("alerts.enabled=true"), helm.render(*CRON)
    silent = helm.render(*CRON, *(f"alerts.{name}.severity=" for name in ("jobFailed", "podPending", "podsFailed")))

    assert ALL[:3] == [rule["alert"] for rule in rules(job)]
    assert ALL == [rule["alert"] for rule in rules(cronjob)]
    assert ALL[:3] == [rule["alert"] for rule in rules(helm.render("alerts.enabled=true", "cronjob.enabled=true"))]
    assert ["FinetuneNoSuccess"] == [rule["alert"] for rule in rules(silent)]


def test_labels_and_annotations(helm: Helm) -> None:
    """Labels, annotations, severity, numbers and the runbook are values; the runbook is a heading of the page."""
    found = helm.render(
        *CRON,
        "alerts.labels.release=prometheus",
        "alerts.alertLabels.team=vision",
        "alerts.alertAnnotations.dashboard=http://grafana/d/1",
        "alerts.runbookUrl=https://git.example.com/docs/operations.md",
        "alerts.podPending.severity=info",
        "alerts.podPending.minutes=10",
        "alerts.podsFailed.count=3",
        "alerts.noSuccess.days=8",
    )
    anchors = {
        heading.lower()
        for heading in re.findall(r"^#+ (\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    }

    assert "prometheus" == found.objects["PrometheusRule"]["metadata"]["labels"]["release"]
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules(found)}
    assert ["critical", "info", "warning", "warning"] == [severities[name] for name in ALL]
    for rule, plain in zip(rules(found), rules(helm.render(*CRON)), strict=True):
        assert "vision" == rule["labels"]["team"]
        assert "http://grafana/d/1" == rule["annotations"]["dashboard"]
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert ("https://git.example.com/docs/operations.md", True) == (page, anchor in anchors)
        assert f"docs/operations.md#{anchor}" == plain["annotations"]["runbook"]
    by_name = {rule["alert"]: rule for rule in rules(found)}
    assert "10m" == by_name["FinetunePodPending"]["for"]
    assert ">= 3" in by_name["FinetunePodsFailed"]["expr"]
    assert "> 8 * 86400" in by_name["FinetuneNoSuccess"]["expr"]


@pytest.mark.newest_helm  # what the versions render is the same
def test_a_job_of_the_release_has_failed(helm: Helm, tmp_path: Path) -> None:
    """The release's Job that has failed fires; another release's, and one that has not failed, do not."""
    found = helm.render("alerts.enabled=true")
    name = found.job["metadata"]["name"]
    series = {
        **of_job("kube_job_info", name, "1x99"),
        **of_job("kube_job_failed", name, "0 0 1x97", condition="true"),
        **of_job("kube_job_info", "other", "1x99"),
        **of_job("kube_job_failed", "other", "1x99", condition="true"),
    }

    assert set() == fired(tmp_path, rules(found), series, 1)
    assert {("FinetuneJobFailed", name)} == fired(tmp_path, rules(found), series, 5)


@pytest.mark.newest_helm
def test_a_failure_ends_with_the_next_success(helm: Helm, tmp_path: Path) -> None:
    """A failed Job of a CronJob fires until a later one has succeeded; a Job of another CronJob never does."""
    series = {
        **owned("night-1"),
        **of_job("kube_job_created", "night-1", "60x99"),
        **of_job("kube_job_failed", "night-1", "1x99", condition="true"),
        **of_job("kube_job_failed", "other", "1x99", condition="true"),
        **of_cronjob("kube_cronjob_status_last_successful_time", "30x9 600x89"),
    }
    found = rules(helm.render(*CRON))

    assert {("FinetuneJobFailed", "night-1")} == fired(tmp_path, found, series, 5)
    assert set() == fired(tmp_path, found, series, 20)


@pytest.mark.newest_helm
def test_pending_for_half_an_hour(helm: Helm, tmp_path: Path) -> None:
    """Pods that wait for 30 minutes fire, also where one Pod has replaced another; one that starts does not."""
    series = {
        **owned("waits", "waits-1"),
        **owned("waits", "waits-2"),
        **phase("waits-1", "Pending", "1x19 _x80"),
        **phase("waits-2", "Pending", "_x19 1x79"),
        **owned("starts", "starts-1"),
        **phase("starts-1", "Pending", "1x19 0x79"),
    }
    found = rules(helm.render(*CRON))

    assert set() == fired(tmp_path, found, series, 29)
    assert {("FinetunePodPending", "waits")} == fired(tmp_path, found, series, 32)


@pytest.mark.newest_helm
def test_many_failed_pods(helm: Helm, tmp_path: Path) -> None:
    """Five failed Pods of a Job fire, by the Pods or by the Job's own count, until the Job has ended."""
    series: Series = {}
    for job, pods in (("five", 5), ("four", 4), ("ended", 5)):
        for number in range(pods):
            series |= owned(job, f"{job}-{number}") | phase(f"{job}-{number}", "Failed", "1x99")
    series |= owned("counted") | of_job("kube_job_status_failed", "counted", "7x99", reason="")
    series |= of_job("kube_job_complete", "ended", "0x9 1x89", condition="true")
    found = rules(helm.render(*CRON))

    ended = ("FinetunePodsFailed", "ended")
    firing = {("FinetunePodsFailed", job) for job in ("five", "counted")}
    assert firing | {ended} == fired(tmp_path, found, series, 5)
    assert firing == fired(tmp_path, found, series, 30)


@pytest.mark.newest_helm
@pytest.mark.parametrize(
    ("suspended", "success", "days", "fires"),
    [
        (0, f"0x{5 * DAY}", 2, False),
        (0, f"0x{5 * DAY}", 4, True),
        (1, f"0x{5 * DAY}", 4, False),
        (0, f"0x{2 * DAY} {2 * 86400}x{3 * DAY}", 4, False),
        (0, None, 4, True),
    ],
    ids=["recent", "long-ago", "suspended", "again", "never"],
)
def test_no_success(helm: Helm, tmp_path: Path, suspended: int, success: str | None, days: int, fires: bool) -> None:
    """A CronJob without a success for three days fires, counted from its creation at first; a suspended one never."""
    series = {
        **of_cronjob("kube_cronjob_created", f"0x{5 * DAY}"),
        **of_cronjob("kube_cronjob_spec_suspend", f"{suspended}x{5 * DAY}"),
    }
    if success:
        series |= of_cronjob("kube_cronjob_status_last_successful_time", success)

    firing = fired(tmp_path, rules(helm.render(*CRON))[3:], series, days * DAY)

    assert ({("FinetuneNoSuccess", "finetune")} if fires else set()) == firing
