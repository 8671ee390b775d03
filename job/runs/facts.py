"""What the documents of a run record, in groups of plain values: for showing a run, and runs side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from job.config.settings import setting_fields
from job.errors import DataError
from job.evaluation.report.files import at, flattened
from job.evaluation.summary import metrics_summary
from job.runs import documents, overview
from job.runs.inventory import RUNS, ListedRun, read_pointer, read_run

if TYPE_CHECKING:
    from job.runs.documents import Document
    from job.runs.named_run import NamedRun
    from job.runs.overview import Details

_METRICS = ("images", "accuracy", "balanced_accuracy", "log_loss", "roc_auc", "pr_auc", "lowest_recall")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about a run.

    Attributes:
        uri: of the run.
        run: dotted name -> value: state, dates, starts, time, cost, version.
        data: the images.
        metrics: of the published model, and the checks of its gate.
        settings: the effective settings.
        changed: names of the settings that differ from their defaults.
    """

    uri: str
    run: Document
    data: Document
    metrics: Document
    settings: Document
    changed: frozenset[str]

    def groups(self) -> dict[str, Document]:
        """Return the groups by their names."""
        return {"run": self.run, "data": self.data, "metrics": self.metrics, "settings": self.settings}

    def document(self) -> Document:
        """Return the facts as plain JSON."""
        return {"run_uri": self.uri, **self.groups(), "changed_settings": sorted(self.changed)}


def read_facts(run: NamedRun, gpu_hour_price: float | None = None) -> Facts:
    """Return the facts about a run, published or not.

    Args:
        run: the run.
        gpu_hour_price: for the cost; None: no cost is computed.

    Raises:
        errors.DataError: there is no such run, or its _SUCCESS or manifest.json is unreadable.
    """
    latest, _ = read_pointer(run.output)
    listed = read_run(run.output, run.run_id, latest=latest)
    if listed.state == "unreadable":
        raise DataError(
            f"{run.store.uri}: {listed.detail}", remedy=f"finetune verify {run.store.uri} lists what differs"
        )
    details = _details(run) if listed.state == "published" else None
    config = details.config if details else _read_json(run, "config.json")
    if listed.state == "incomplete" and not config:
        raise DataError(f"there is no run {run.store.uri}", remedy=f"finetune runs list {run.output.uri}")
    recorded = at(config, "settings")
    settings = dict(flattened(recorded)) if recorded else {}
    return Facts(
        uri=run.store.uri,
        run=_run(listed, gpu_hour_price),
        data=_data(listed, config),
        metrics=_metrics(details),
        settings=settings,
        changed=frozenset(name for name, value in settings.items() if value != _default(name)),
    )


def _details(run: NamedRun) -> Details:
    remedy = f"finetune verify {run.store.uri} lists what differs"
    found = documents.read(run.store, "_SUCCESS", documents.Success, remedy=remedy)
    details = found and overview.read_details(lambda name: _read(run, name), found[0].manifest_sha256)
    if not details:
        raise DataError(f"{run.store.uri}: manifest.json is not the one that _SUCCESS names", remedy=remedy)
    return details


def _read(run: NamedRun, name: str) -> bytes | None:
    found = run.output.read(f"{RUNS}/{run.run_id}/{name}")
    return found[0] if found else None


def _read_json(run: NamedRun, name: str) -> Document:
    try:
        document = json.loads(_read(run, name) or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _run(listed: ListedRun, gpu_hour_price: float | None) -> Document:
    found, status = listed.overview, listed.status
    values: Document = {
        "id": listed.run_id,
        "state": listed.state,
        "latest": listed.is_latest,
        "pinned": listed.is_pinned,
    }
    if found is None:
        names = ("message", "reason", "remedy", "stage", "epoch", "epochs", "phase", "done", "total", "attempt")
        return values | {name: status[name] for name in (*names, "updated_at") if status.get(name) is not None}
    return values | {
        "published_at": found.published_at,
        "gate_passed": found.gate_passed,
        "attempts": found.attempts,
        "hours": None if found.seconds is None else found.seconds / 3600,
        "gpu_hours": listed.gpu_hours(),
        **({} if gpu_hour_price is None else {"cost": listed.cost(gpu_hour_price)}),
        "version": found.version,
    }


def _data(listed: ListedRun, config: Document) -> Document:
    found = listed.overview
    return {
        "uri": at(config, "settings", "input", "uri"),
        "digest": at(config, "identity", "data"),
        **({f"images.{split}": count for split, count in found.images.items()} if found else {}),
        **({"labels": found.labels} if found else {}),
    }


def _metrics(details: Details | None) -> Document:
    """Return what matters most in metrics.json, with the 95 % interval of the accuracy, and each check of the gate."""
    if details is None:
        return {}
    try:
        summary = metrics_summary(details.metrics)
    except (KeyError, TypeError, AttributeError):  # lost, or of another version
        summary = {}
    values: Document = {}
    for split in filter(partial(at, summary), ("validation", "test")):
        scores = summary[split]
        for name, value in flattened({name: scores[name] for name in _METRICS if name in scores}):
            values[f"{split}.{name}"] = value
            if name == "accuracy" and (interval := at(details.metrics, split, "intervals", "accuracy")):
                values[f"{split}.{name}_interval"] = interval
    kept = at(summary, "kept") or {}
    values |= {f"kept.{name}": kept[name] for name in ("stage", "epoch", "val_loss") if name in kept}
    values |= {f"gate.{check.name}": check.passed for check in details.manifest.gate.checks}
    if warnings := at(summary, "warnings"):
        values["warnings"] = warnings
    return values


def _default(name: str) -> object:
    field = setting_fields().get(name)
    default = field.default if field else None
    return list(default) if isinstance(default, tuple) else default
