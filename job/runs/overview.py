"""The overview of a run: the few values that a table of all runs shows, stored in ``_SUCCESS``.

One read of ``_SUCCESS`` says that a run is published and what it is. It repeats what manifest.json, config.json,
metrics.json and provenance.json have, so a run that was published without an overview gets it from these.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from job.evaluation.report.files import at
from job.runs import documents
from job.runs.statement import PROVENANCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.runs.documents import Document, Overview, PublishedManifest


METRICS = "metrics/metrics.json"
SPLITS = ("train", "validation", "test")


class Details(NamedTuple):
    """What the files of a published run record. A file that is missing or unreadable is an empty document.

    Attributes:
        manifest: manifest.json.
        config: config.json.
        metrics: metrics/metrics.json.
        provenance: provenance.json.
    """

    manifest: PublishedManifest
    config: Document
    metrics: Document
    provenance: Document

    def overview(self) -> Overview:
        """Return the overview of the run."""
        try:
            return documents.Overview.model_validate({**required(self.manifest), **_recorded(self)})
        except (ValidationError, AttributeError, TypeError):  # files of another format: the manifest's values are typed
            return documents.Overview.model_validate(required(self.manifest))


def read(read_file: Callable[[str], bytes | None], manifest_sha256: str) -> Overview | None:
    """Return the overview of a run whose files are written; None if manifest.json is not the one that is named.

    Args:
        read_file: returns the content of a file of the run; None if it does not exist.
        manifest_sha256: of manifest.json.
    """
    details = read_details(read_file, manifest_sha256)
    return details and details.overview()


def read_details(read_file: Callable[[str], bytes | None], manifest_sha256: str) -> Details | None:
    """Return what the files of a run record; see `read`."""
    data = read_file("manifest.json") or b""
    if hashlib.sha256(data).hexdigest() != manifest_sha256:
        return None
    try:
        manifest = documents.parse(data, documents.PublishedManifest)
    except documents.UnreadableError:
        return None
    return Details(manifest, *(_parse(read_file(name)) for name in ("config.json", METRICS, PROVENANCE)))


def _parse(data: bytes | None) -> Document:
    try:
        document = json.loads(data or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def required(manifest: PublishedManifest) -> Document:
    """Return the fields of an overview that manifest.json has."""
    return {
        "run_id": manifest.run_id,
        "published_at": manifest.published_at,
        "gate_passed": manifest.gate.passed,
        "accuracy": manifest.gate.accuracy,
        "version": at(manifest.document(), "provenance", "version"),
    }


def _recorded(details: Details) -> Document:
    """Return what the other files record; what is missing is None."""
    metrics = details.metrics
    labels = at(metrics, "data", "labels") or {}
    execution = at(details.provenance, "predicate", "runDetails", "metadata") or {}
    starts, attempts = at(execution, "finetune_starts"), at(execution, "finetune_attempts") or ()
    return {
        "accuracy_interval": at(metrics, "validation", "intervals", "accuracy"),
        "data_uri": at(details.config, "settings", "input", "uri"),
        "data_digest": at(details.config, "identity", "data"),
        "images": {split: sum(at(counts, split) or 0 for counts in labels.values()) for split in SPLITS * bool(labels)},
        "labels": len(labels) or None,
        "kept_stage": at(metrics, "kept", "stage"),
        "kept_epoch": at(metrics, "kept", "epoch"),
        # Starts of the Job that ended before they had a run are no starts of the run; those of earlier Jobs are.
        "attempts": max(starts or 0, len(attempts)) or None,
        "seconds": at(execution, "finetune_seconds", "total"),
        "gpu_seconds": at(execution, "finetune_gpu_seconds", "total"),
    }
