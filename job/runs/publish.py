"""Publication: the steps that make a finished run count, in an order that readers can rely on.

    files -> provenance.json -> manifest.json -> the claim's commit -> _SUCCESS -> latest.json
        -> removal of the checkpoints

Readers must ignore a run without ``_SUCCESS``. A start that finds the commit completes the remaining steps.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from job import errors, storage
from job.evaluation.summary import metrics_summary
from job.observability import log
from job.runs import documents, overview, statement
from job.runs.latest import pointer, read_latest

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.settings import GateSettings
    from job.evaluation.gates import Gate
    from job.runs.run import Run
    from job.runs.statement import Execution


Judge: TypeAlias = "Callable[[], Gate]"
"""Judges the gate of the run that is being published, with a new comparison."""


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
                f"{'; '.join(check.failure() for check in self.gate.failed)}: the model is published under "
                f"{self.run_uri}, and this run does not move latest.json",
                remedy="look at its metrics/ and data/quarantine.jsonl; more or cleaner images, or other settings, "
                "make another run",
            )


def published(run: Run, settings: GateSettings) -> Outcome | None:
    """Return the outcome if the run is published, after completing the steps that follow the commit; else None.

    The gate is judged by the settings of this start, on the recorded metrics; a recorded comparison with the latest
    run is reported as it is. Only the claim holder acts on a commit without ``_SUCCESS``; for other processes, the run
    is published once ``_SUCCESS`` exists.

    Raises:
        errors.DataError: manifest.json is missing or unreadable.
        errors.StoppedError: the run was deleted after this start had opened it.
    """
    is_success = run.is_published()
    committed = run.claimed.manifest_sha256 if run.claimed else run.index().manifest_sha256 if is_success else None
    if not is_success:
        _check_not_deleted(run)
        found = run.output.read(_manifest_name(run)) if committed else None
        if not committed or found is None or hashlib.sha256(found[0]).hexdigest() != committed:
            return None  # nothing was committed, or its manifest is lost: do the work again
        _write_success(run, committed)
    manifest = _read_manifest(run)
    gate = manifest.gate.judged_again(settings)
    outcome = _complete(run, manifest, gate, None, move_latest=committed is not None)
    if gate.passed and not committed and not manifest.gate.passed:
        _warn_not_moved(run, "published below its gate: latest.json is not moved afterwards")
    return outcome


def completed(run: Run, settings: GateSettings) -> Outcome | None:
    """Return the outcome if the run is published and no step of the publication is left; else None. Only reads.

    Raises:
        errors.DataError: manifest.json is missing or unreadable.
    """
    if not run.is_published() or run.index().manifest_sha256:
        return None
    manifest = _read_manifest(run)
    return Outcome(run_uri=run.uri, published_at=manifest.published_at, gate=manifest.gate.judged_again(settings))


def published_metrics(run: Run) -> dict[str, Any]:
    """Return what matters most in the metrics.json of a published run: `run.evaluated` has to fit into a log line.

    Empty if it cannot be read: that is no reason for a published run to fail.
    """
    with contextlib.suppress(errors.FinetuneError, ValueError, KeyError, TypeError, AttributeError):
        if found := run.output.read(f"{run.prefix}/metrics/metrics.json"):
            document = json.loads(found[0])
            return metrics_summary(document)
    return {}


def finish(run: Run, gate: Gate, execution: Execution, *, judge: Judge | None = None) -> Outcome:
    """Write provenance.json, manifest.json, ``_SUCCESS`` and latest.json, and remove the checkpoints.

    Args:
        run: the run; all its other files are written.
        gate: its outcome.
        execution: how the run was executed.
        judge: judges the gate again, where latest.json has moved since `gate` compared the run with it.

    Raises:
        errors.StoppedError: another process has taken the run over.
    """
    assert run.claimed is not None, "publishing requires the claim"
    name, config = f"{run.prefix}/config.json", {}
    if found := run.output.read(name):  # written by the run's first start
        run.record("config.json", found[1], hashlib.sha256(found[0]).hexdigest())
        config = documents.parse(found[0], documents.Config).document()
    execution = dataclasses.replace(execution, started_at=run.output.updated(name))
    files = {name: documents.PublishedFile.model_validate(file) for name, file in run.files.items()}
    made = statement.document(run.uri, files, config, execution, now=time.time())
    run.write(statement.PROVENANCE, documents.encode(made))
    manifest = documents.PublishedManifest.model_validate(
        {
            "run_id": run.id,
            "published_at": log.timestamp(),
            "gate": gate.document(),
            "provenance": execution.provenance,
            "files": dict(sorted(run.files.items())),
        }
    )
    data = documents.encode(manifest.document())
    sha256 = hashlib.sha256(data).hexdigest()
    run.overwrite("manifest.json", data)
    run.claimed.commit(sha256)
    _write_success(run, sha256)
    return _complete(run, manifest, gate, judge, move_latest=True)


def _check_not_deleted(run: Run) -> None:
    """Raise errors.StoppedError if the run was deleted while this start waited for its claim."""
    if run.claimed is not None and run.read("config.json") is None:
        raise errors.StoppedError(
            f"{run.uri} has no config.json: it was deleted since this start opened it",
            remedy="nothing to do for a Job: its next Pod begins the run again; elsewhere start it again",
        )


def _write_success(run: Run, manifest_sha256: str) -> None:
    found = overview.read(run.read, manifest_sha256)
    success = documents.encode({"manifest_sha256": manifest_sha256, "overview": found and found.document()})
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


def _complete(
    run: Run, manifest: documents.PublishedManifest, gate: Gate, judge: Judge | None, *, move_latest: bool
) -> Outcome:
    """Do the steps that follow ``_SUCCESS``; idempotent.

    The index is deleted last: with its commit the publication is incomplete, and without it latest.json is never moved
    again, so that a rollback stays.
    """
    if move_latest and gate.passed:
        gate = _move_latest(run, manifest, gate, judge)
    index = f"{run.prefix}/checkpoints/index.json"
    for name in sorted(run.output.generations(f"{run.prefix}/checkpoints"), key=lambda name: name == index):
        run.output.delete(name)
    return Outcome(run_uri=run.uri, published_at=manifest.published_at, gate=gate)


def _move_latest(run: Run, manifest: documents.PublishedManifest, gate: Gate, judge: Judge | None) -> Gate:
    """Point latest.json to this run, unless it is pinned or points to a run that was published later.

    Where the gate compares the run with the latest one, only the generation that was compared is replaced. If it is
    another one, the gate is judged again; a start that only completes a publication has no model to do so.

    Returns:
        The gate, as last judged.
    """
    while gate.passed:
        current, generation = read_latest(run.output)
        if current and current.pinned:
            log.get().warning("latest.pinned", run_uri=run.uri, latest=current.run_id)
            break
        if current and current.published_at >= manifest.published_at:
            break
        if not gate.may_replace(generation):
            if judge is None:
                _warn_not_moved(run, "it has moved since this run was compared with it, or this run never was")
                break
            gate = judge()
            continue
        document = pointer(run.uri, manifest, gate, by="finetune run", why="published", pinned=False)
        try:
            run.output.write("latest.json", document, if_generation_match=generation)
        except storage.PreconditionFailed:
            continue  # another run was published concurrently: read it again
        break
    return gate


def _warn_not_moved(run: Run, note: str) -> None:
    latest, _ = read_latest(run.output)
    log.get().warning("latest.not_moved", run_uri=run.uri, latest=latest and latest.run_id, note=note)
