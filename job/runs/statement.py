"""provenance.json: how a run was made, as an in-toto Statement with the SLSA provenance v1 predicate.

It is plain JSON, and not signed. Its subjects are the published files. Formats:
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and https://slsa.dev/spec/v1.1/provenance. The
URNs of this project are explained in docs/output.md.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from job import __version__
from job.runs.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from job.runs.documents import Document, PublishedFile

PROVENANCE = "provenance.json"
"""Name of the file, in the run."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:finetune:build:run:v1"
BUILDER_ID = "urn:finetune:builder:v1"

_DATA = ("data/manifest.jsonl", "data/split.jsonl")
"""Published lists of the images: what was trained on, and which image is in which split."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a run was executed, in all of its starts.

    Attributes:
        provenance: as manifest.json has it, with device and weights.
        seconds: part of the run -> wall-clock seconds, over all starts.
        gpus: number of GPUs of the last start.
        starts: their number.
        attempts: those of the Job's record, oldest first; None without a Job.
        started_at: seconds since 1970; None if unknown.
    """

    provenance: Document
    seconds: Mapping[str, float]
    gpus: int = 0
    starts: int = 1
    attempts: Sequence[Document] | None = None
    started_at: float | None = None


def document(
    run_uri: str, files: Mapping[str, PublishedFile], config: Document, execution: Execution, *, now: float
) -> Document:
    """Return the statement.

    Args:
        run_uri: of the run.
        files: name -> checksums of every file that is published, without this one.
        config: config.json.
        execution: of the run.
        now: seconds since 1970.
    """
    provenance = execution.provenance
    job = provenance.get("job") or {}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": file.sha256}} for name, file in sorted(files.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"settings": config.get("settings")},
                "internalParameters": {"python": provenance.get("python"), "job": job},
                "resolvedDependencies": list(_dependencies(files, config, provenance)),
            },
            "runDetails": {
                "builder": {"id": BUILDER_ID, "version": {"finetune": __version__}},
                "metadata": {
                    "invocationId": job.get("uid") or run_uri,
                    "startedOn": _timestamp(execution.started_at),
                    "finishedOn": _timestamp(now),
                    # what SLSA has no field for: names with a prefix, as the specification asks of extensions
                    "finetune_hardware": provenance.get("device"),
                    "finetune_starts": execution.starts,
                    "finetune_seconds": dict(execution.seconds),
                    "finetune_gpu_seconds": {
                        name: round(seconds * execution.gpus, 3) for name, seconds in execution.seconds.items()
                    },
                    "finetune_attempts": None if execution.attempts is None else with_losses(execution.attempts),
                },
            },
        },
    }


def _dependencies(files: Mapping[str, PublishedFile], config: Document, provenance: Document) -> Iterator[Document]:
    """Yield what the run was made from: data, split, settings, weights, code, image and packages."""
    identity = config.get("identity") or {}
    settings = config.get("settings") or {}
    data_uri = (settings.get("input") or {}).get("uri") or ""
    # The digest is over names, sizes, checksums and labels: the same data in another place have the same.
    if data := identity.get("data"):
        yield {"name": "data", **_uri(data_uri), "digest": {"finetuneData": data}}
        settings_only = Identity(recipe=identity["recipe"], data=None, settings=identity["settings"])
        yield {"name": "settings", "digest": {"finetuneSettings": settings_only.digest}}
    for name in (*_DATA, "config.json"):
        if name in files:
            yield {"name": name, "digest": {"sha256": files[name].sha256}}
    if weights := provenance.get("weights"):
        yield {"name": "weights", **_uri(weights["source"]), "digest": {"finetuneWeights": weights["digest"]}}
        if run := weights.get("run"):  # of a warm start
            name = f"{weights['source']}/manifest.json"
            yield {"name": "warm start", **_uri(name), "digest": {"sha256": run["manifest_sha256"]}}
    if revision := provenance.get("revision"):
        yield {"name": "source", "digest": {"gitCommit": revision}}
    if image := provenance.get("image"):
        pinned = re.search(r"@sha256:([0-9a-f]{64})$", image)
        yield {"name": "image", "uri": f"docker://{image}", **({"digest": {"sha256": pinned[1]}} if pinned else {})}
    for name, version in sorted(packages().items()):
        yield {"uri": f"pkg:pypi/{name}@{version}"}


def _uri(place: str) -> dict[str, str]:
    """Return the field with the URI of a place; none for what has no place, such as the demo's pictures."""
    if place.startswith("/"):
        return {"uri": Path(place).as_uri()}
    return {"uri": place} if "://" in place else {}


@functools.cache
def packages() -> Mapping[str, str]:
    """Return name -> version of every installed distribution, but this program itself."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if name and name != "finetune":
            found.setdefault(name, distribution.version)
    return MappingProxyType(found)


def with_losses(attempts: Sequence[Document]) -> list[Document]:
    """Return the starts of a Job, each with ``lost_seconds``: of work that a later start did again.

    That is the time from the checkpoint from which a later start resumed to the end of the start; of one that was
    killed, to the beginning of the next one, so at most that. It is null where no later start resumed from a checkpoint
    or began from scratch.
    """
    found = []
    for number, attempt in enumerate(attempts):
        later = attempts[number + 1 :]
        resumed = next((other for other in later if "resumed_from" in other), None)
        started = _seconds(attempt.get("started_at"))
        ended = _seconds(attempt.get("ended_at")) or (_seconds(later[0].get("started_at")) if later else None)
        lost: float | None = None
        if not later:
            lost = 0.0
        elif resumed is not None and started is not None and ended is not None:
            lost = round(max(0.0, ended - max(started, _seconds(resumed["resumed_from"]) or 0.0)), 1)
        found.append({**attempt, "lost_seconds": lost})
    return found


def _seconds(timestamp: Any) -> float | None:
    """Return the seconds since 1970 of a timestamp; None if it is none."""
    try:
        return dt.datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError):
        return None


def _timestamp(seconds: float | None) -> str | None:
    """Return a time in RFC 3339 format, UTC, to the second."""
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
