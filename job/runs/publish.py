"""Publication: the steps that make a finished run count, in an order that readers can rely on.

    files -> manifest.json -> the claim's commit -> _SUCCESS -> latest.json -> removal of the checkpoints

Readers must ignore a run without ``_SUCCESS``. A start that finds the commit completes the remaining steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job import errors, storage
from job.evaluation.gates import Gate
from job.evaluation.summary import metrics_summary
from job.observability import log
from job.runs import documents

if TYPE_CHECKING:
    from job.config.settings import GateSettings
    from job.runs.documents import Document
    from job.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_uri: of the run.
        published_at: RFC 3339, UTC.
        gate: as judged by this start.
    """

    run_uri: str
    published_at: str
    gate: Gate

    def check_gate(self) -> None:
        """Raise errors.GateError if the gate failed."""
        if not self.gate.passed:
            raise errors.GateError(
                f"the validation accuracy is {self.gate.accuracy:.4f}, below gate.min_accuracy = "
                f"{self.gate.min_accuracy:g}: the model is published under {self.run_uri}, "
                "and this run does not move latest.json",
                remedy="look at its metrics/ and data/quarantine.jsonl; more or cleaner images, or other settings, "
                "make another run",
            )


def published(run: Run, settings: GateSettings) -> Outcome | None:
    """Return the outcome if the run is published, after completing the steps that follow the commit; else None.

    The gate is judged by the settings of this start, on the recorded metrics. Only the claim holder acts on a commit
    without ``_SUCCESS``; for other processes, the run is published once ``_SUCCESS`` exists.

    Raises:
        errors.DataError: manifest.json is missing or unreadable.
    """
    is_success = run.is_published()
    committed = run.claimed.manifest_sha256 if run.claimed else run.index().manifest_sha256 if is_success else None
    if not is_success:
        found = run.output.read(_manifest_name(run)) if committed else None
        if not committed or found is None or hashlib.sha256(found[0]).hexdigest() != committed:
            return None  # nothing was committed, or its manifest is lost: do the work again
        _write_success(run, committed)
    manifest = _read_manifest(run)
    gate = Gate.of(manifest.gate.accuracy, settings.min_accuracy)
    outcome = _complete(run, manifest, gate, move_latest=committed is not None)
    if gate.passed and not committed and not manifest.gate.passed:
        latest = _read_latest(run)[0]
        note = f"published below its gate of {manifest.gate.min_accuracy:g}: latest.json is not moved afterwards"
        log.get().warning("latest.not_moved", run_uri=run.uri, latest=latest and latest.run_id, note=note)
    return outcome


def published_metrics(run: Run) -> dict[str, Any]:
    """Return what matters most in the metrics.json of a published run: `run.evaluated` has to fit into a log line.

    Empty if it cannot be read: that is no reason for a published run to fail.
    """
    with contextlib.suppress(errors.FinetuneError, ValueError, KeyError, TypeError, AttributeError):
        if found := run.output.read(f"{run.prefix}/metrics/metrics.json"):
            document = json.loads(found[0])
            return metrics_summary(document)
    return {}


def finish(run: Run, gate: Gate, provenance: Document) -> Outcome:
    """Write manifest.json, ``_SUCCESS`` and latest.json, and remove the checkpoints.

    Raises:
        errors.StoppedError: another process has taken the run over.
    """
    assert run.claimed is not None, "publishing requires the claim"
    if config := run.output.read(f"{run.prefix}/config.json"):  # written by the run's first start
        run.record("config.json", config[1], hashlib.sha256(config[0]).hexdigest())
    manifest = documents.PublishedManifest.model_validate(
        {
            "run_id": run.id,
            "published_at": log.timestamp(),
            "gate": vars(gate),
            "provenance": provenance,
            "files": dict(sorted(run.files.items())),
        }
    )
    data = documents.encode(manifest.document())
    sha256 = hashlib.sha256(data).hexdigest()
    run.overwrite("manifest.json", data)
    run.claimed.commit(sha256)
    _write_success(run, sha256)
    return _complete(run, manifest, gate, move_latest=True)


def _write_success(run: Run, manifest_sha256: str) -> None:
    success = documents.encode({"manifest_sha256": manifest_sha256})
    try:
        run.output.write(f"{run.prefix}/_SUCCESS", success, if_generation_match=0)
    except storage.PreconditionFailed:
        log.get().warning("run.already_published", run_uri=run.uri)


def _manifest_name(run: Run) -> str:
    return f"{run.prefix}/manifest.json"


def _read_manifest(run: Run) -> documents.PublishedManifest:
    remedy = f"restore it from a copy, or delete everything below {run.uri} and start again"
    found = documents.read(run.output, _manifest_name(run), documents.PublishedManifest, remedy=remedy)
    if found is None:
        raise errors.DataError(f"{run.uri} has _SUCCESS and no manifest.json: it was deleted", remedy=remedy)
    return found[0]


def _complete(run: Run, manifest: documents.PublishedManifest, gate: Gate, *, move_latest: bool) -> Outcome:
    """Do the steps that follow ``_SUCCESS``; idempotent.

    The index is deleted last: with its commit the publication is incomplete, and without it latest.json is never moved
    again, so that a rollback stays.
    """
    if move_latest and gate.passed:
        _move_latest(run, manifest, gate)
    index = f"{run.prefix}/checkpoints/index.json"
    for name in sorted(run.output.generations(f"{run.prefix}/checkpoints"), key=lambda name: name == index):
        run.output.delete(name)
    return Outcome(run_uri=run.uri, published_at=manifest.published_at, gate=gate)


def _move_latest(run: Run, manifest: documents.PublishedManifest, gate: Gate) -> None:
    """Point latest.json to this run, unless it is pinned or points to a run that was published later."""
    promoted = {"by": "finetune run", "at": log.timestamp(), "why": "published"}
    latest = {
        "run_id": run.id,
        "run_uri": run.uri,
        "published_at": manifest.published_at,
        "gate": vars(gate),
        "promoted": promoted,
        "pinned": False,
    }
    while True:
        current, generation = _read_latest(run)
        if current and current.pinned:
            log.get().warning("latest.pinned", run_uri=run.uri, latest=current.run_id)
            return
        if current and current.published_at >= manifest.published_at:
            return
        try:
            run.output.write("latest.json", documents.encode(latest), if_generation_match=generation)
        except storage.PreconditionFailed:
            continue  # another run was published concurrently: read it again
        return


def _read_latest(run: Run) -> tuple[documents.Latest | None, int]:
    """Return latest.json and its generation; None if it does not exist or is unreadable."""
    found = run.output.read("latest.json")
    if found is None:
        return None, 0
    try:
        return documents.parse(found[0], documents.Latest), found[1].generation
    except documents.UnreadableError as error:
        log.get().warning("latest.unreadable", uri=run.output.uri_of("latest.json"), error=str(error))
        return None, found[1].generation
