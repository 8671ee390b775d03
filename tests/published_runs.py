"""Published runs without a training: folders with the files, manifest.json and _SUCCESS of one."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from job import storage
from job.runs import documents, statement
from job.runs.documents import PublishedFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from job.storage import Store

FILES = {
    "config.json": b"{}",
    "model/labels.txt": b"cats\ndogs\n",
    "model/saved_model/saved_model.pb": b"graph" * 1000,
    "data/split.jsonl": b"",
}


def described(data: bytes) -> PublishedFile:
    """Return what manifest.json has of a file."""
    return PublishedFile(size=len(data), sha256=hashlib.sha256(data).hexdigest(), crc32c=f"{storage.crc32c(data):08x}")


def publish(store: Store, files: Mapping[str, bytes] = FILES, *, provenance: bool = True) -> Store:
    """Write a published run into a store, which is the run's own."""
    written = dict(files)
    if provenance:
        described_files = {name: described(data) for name, data in files.items()}
        execution = statement.Execution(provenance={}, seconds={})
        made = statement.document(store.uri, described_files, {}, execution, now=0.0)
        written[statement.PROVENANCE] = documents.encode(made)
    gate = {"passed": True, "accuracy": 0.9, "min_accuracy": 0.0}
    manifest = {"run_id": "r", "published_at": "2026-01-01T00:00:00Z", "gate": gate}
    manifest["files"] = {name: described(data).document() for name, data in written.items()}
    written["manifest.json"] = json.dumps(manifest).encode()
    success = {"manifest_sha256": hashlib.sha256(written["manifest.json"]).hexdigest()}
    written["_SUCCESS"] = json.dumps(success).encode()
    for name, data in written.items():
        store.write(name, data)
    return store
