"""Outputs with several runs: published, unfinished and damaged, without a training."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import report_files
from published_runs import described

from job.runs import documents, overview, statement

if TYPE_CHECKING:
    from job.storage import Store

NOW = dt.datetime(2026, 6, 30, 12, tzinfo=dt.UTC)


@functools.cache
def config(*flags: str, run_id: str) -> bytes:
    """Return config.json."""
    return report_files.config(*flags, run_id=run_id)


@functools.cache
def metrics() -> bytes:
    """Return metrics.json."""
    return report_files.encode(report_files.metrics(report_files.TWO))


def write(output: Store, name: str, data: bytes) -> None:
    """Write an object; into a folder without waiting for the disk."""
    if output.uri.startswith("/"):
        path = Path(output.uri_of(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    else:
        output.write(name, data)


def days_ago(days: float) -> str:
    """Return a time before `NOW`, as documents have it."""
    return (NOW - dt.timedelta(days=days)).isoformat().replace("+00:00", "Z")


def publish(
    output: Store,
    run_id: str,
    *flags: str,
    days: float = 1,
    accuracy: float = 0.9,
    passed: bool = True,
    gpu_hours: float = 2,
    starts: int = 1,
    with_overview: bool = True,
) -> None:
    """Write a published run.

    Args:
        output: where.
        run_id: its name.
        flags: its settings.
        days: before `NOW`.
        accuracy: on validation.
        passed: its gate.
        gpu_hours: of one GPU.
        starts: their number.
        with_overview: into _SUCCESS.
    """
    files = {
        "config.json": config(*flags, run_id=run_id),
        "metrics/metrics.json": metrics(),
        "model/labels.txt": b"cats\ndogs\n",
    }
    hashes = {name: described(data) for name, data in files.items()}
    execution = statement.Execution(provenance={}, seconds={"total": 3600 * gpu_hours}, gpus=1, starts=starts)
    made = statement.document(output.uri, hashes, json.loads(files["config.json"]), execution, now=0.0)
    files[statement.PROVENANCE] = documents.encode(made)
    manifest: dict[str, Any] = {
        "run_id": run_id,
        "published_at": days_ago(days),
        "gate": {"passed": passed, "accuracy": accuracy, "min_accuracy": 0.0},
        "files": {name: described(data).document() for name, data in files.items()},
    }
    files["manifest.json"] = documents.encode(manifest)
    sha256 = hashlib.sha256(files["manifest.json"]).hexdigest()
    found = overview.read(files.get, sha256) if with_overview else None
    files["_SUCCESS"] = documents.encode({"manifest_sha256": sha256, "overview": found and found.document()})
    for name, data in files.items():
        write(output, f"runs/{run_id}/{name}", data)


def begin(output: Store, run_id: str, state: str = "running", *, days: float = 0, **status: Any) -> None:
    """Write an unfinished run with its status.json."""
    write(output, f"runs/{run_id}/config.json", config(run_id=run_id))
    document = {"state": state, "run_id": run_id, "attempt": 2, "updated_at": days_ago(days), **status}
    write(output, f"runs/{run_id}/status.json", documents.encode(document))


def claim(output: Store, run_id: str, *, days: float = 0, released: bool = False, **index: Any) -> bytes:
    """Write the index of a run's checkpoints with a claim; return it."""
    process = {"host": "node", "pid": 1}
    held = {"owner": "uid", "process": process, "released": released, "renewed_at": days_ago(days)}
    data = documents.encode({"claim": held, **index})
    write(output, f"runs/{run_id}/checkpoints/index.json", data)
    return data


def point_to(output: Store, run_id: str, *, pinned: bool = False) -> None:
    """Write latest.json."""
    write(output, "latest.json", documents.encode({"run_id": run_id, "published_at": days_ago(1), "pinned": pinned}))


def names(output: Store, run_id: str) -> list[str]:
    """Return the names of a run's objects, in the run."""
    return sorted(name.removeprefix(f"runs/{run_id}/") for name in output.entries(f"runs/{run_id}"))
