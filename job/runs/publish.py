"""Publication: the steps that make a finished run count, in an order that readers can rely on.

    files -> manifest.json -> the claim's commit -> _SUCCESS -> latest.json -> removal of the checkpoints

Readers must ignore a run without ``_SUCCESS``. A start that finds it, or the commit, completes the remaining steps.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job import errors, storage
from job.evaluation.gates import Gate
from job.observability import log
from job.runs.run import encode

if TYPE_CHECKING:
    from job.runs.run import Document, Run


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    run_uri: str
    gate: Gate

    def check_gate(self) -> None:
        """Raise errors.GateError if the gate failed."""
        if not self.gate.passed:
            raise errors.GateError(
                f"the validation accuracy is {self.gate.accuracy:.4f}, and gate.min_accuracy is "
                f"{self.gate.min_accuracy:g}: the model is published under {self.run_uri}, "
                "and latest.json was not moved",
                remedy="look at its metrics/ and data/quarantine.jsonl; more or cleaner images, or other settings, "
                "make another run",
            )


def published(run: Run) -> Outcome | None:
    """Return the outcome if the run is published, after completing the steps that follow the commit; else None.

    Only the claim holder sees the commit; for other processes, the run is published once ``_SUCCESS`` exists.
    """
    if run.output.stat(f"{run.prefix}/_SUCCESS") is None:
        committed = run.claimed and run.claimed.manifest_sha256
        found = run.output.read(f"{run.prefix}/manifest.json") if committed else None
        if not committed or found is None or hashlib.sha256(found[0]).hexdigest() != committed:
            return None  # nothing was committed, or its manifest is lost: do the work again
        _write_success(run, committed)
    manifest = run.read("manifest.json")
    if manifest is None:
        raise errors.DataError(
            f"{run.uri} has _SUCCESS and no manifest.json: somebody removed it",
            remedy="remove the whole run, and start again",
        )
    return _complete(run, manifest)


def finish(run: Run, gate: Gate, provenance: Document) -> Outcome:
    """Write manifest.json, ``_SUCCESS`` and latest.json, and remove the checkpoints.

    Raises:
        errors.StoppedError: another process has taken the run over.
    """
    assert run.claimed is not None, "publishing requires the claim"
    if config := run.output.read(f"{run.prefix}/config.json"):  # written by the run's first start
        run.record("config.json", config[1], hashlib.sha256(config[0]).hexdigest())
    manifest = {
        "run_id": run.id,
        "published_at": log.timestamp(),
        "gate": vars(gate),
        "provenance": provenance,
        "files": dict(sorted(run.files.items())),
    }
    data = encode(manifest)
    sha256 = hashlib.sha256(data).hexdigest()
    run.overwrite("manifest.json", data)
    run.claimed.commit(sha256)
    _write_success(run, sha256)
    return _complete(run, manifest)


def _write_success(run: Run, manifest_sha256: str) -> None:
    success = encode({"manifest_sha256": manifest_sha256})
    try:
        run.output.write(f"{run.prefix}/_SUCCESS", success, if_generation_match=0)
    except storage.PreconditionFailed:
        log.get().warning("run.already_published", run_uri=run.uri)


def _complete(run: Run, manifest: Document) -> Outcome:
    """Do the steps that follow ``_SUCCESS``; idempotent."""
    gate = Gate(**manifest["gate"])
    if gate.passed:
        _move_latest(run, manifest)
    for info in list(run.output.list(f"{run.prefix}/checkpoints")):
        run.output.delete(info.name)
    return Outcome(run_uri=run.uri, gate=gate)


def _move_latest(run: Run, manifest: Document) -> None:
    """Point latest.json to this run unless it points to one that was published later."""
    latest = {key: manifest[key] for key in ("run_id", "published_at", "gate")} | {"run_uri": run.uri}
    while True:
        found = run.output.read("latest.json")
        if found and json.loads(found[0])["published_at"] >= latest["published_at"]:
            return
        try:
            run.output.write("latest.json", encode(latest), if_generation_match=found[1].generation if found else 0)
        except storage.PreconditionFailed:
            continue  # another run was published concurrently: read it again
        return
