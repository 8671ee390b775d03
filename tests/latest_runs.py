"""A published run as its files in an output, and latest.json that names it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from published_runs import described

from job.runs.documents import encode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from job.storage import Store

MODEL = {
    "model/saved_model/saved_model.pb": b"graph",
    "model/saved_model/fingerprint.pb": b"fingerprint",
    "model/saved_model/variables/variables.index": b"index",
    "model/saved_model/variables/variables.data-00000-of-00001": b"weights",
}


def publish(
    output: Store,
    run_id: str = "old",
    *,
    trained_on: Sequence[tuple[int, int]] = (),
    held_out: Sequence[tuple[int, int]] = (),
    labels: Sequence[str] = ("a", "b"),
    published_at: str = "2001-01-01T00:00:00Z",
    more_files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a published run, and point latest.json to it.

    Args:
        output: where.
        run_id: its name.
        trained_on: size and crc32c of its training images.
        held_out: those of its validation images.
        labels: its class names.
        published_at: when.
        more_files: name -> content of files that are added, or replace others.
    """
    images = [(content, "train") for content in trained_on] + [(content, "validation") for content in held_out]
    rows = [{"uri": f"/in/{n}", "size": size, "crc32c": crc32c} for n, ((size, crc32c), _) in enumerate(images)]
    splits = [{"uri": f"/in/{n}", "split": split} for n, (_, split) in enumerate(images)]
    files = {
        "model/labels.txt": "".join(f"{label}\n" for label in labels).encode(),
        "data/manifest.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "data/split.jsonl": "".join(json.dumps(row) + "\n" for row in splits).encode(),
        **MODEL,
        **(more_files or {}),
    }
    for name, data in files.items():
        output.write(f"runs/{run_id}/{name}", data)
    manifest = {
        "run_id": run_id,
        "published_at": published_at,
        "gate": {"passed": True, "accuracy": 0.9, "min_accuracy": 0.0},
        "files": {name: described(data).document() for name, data in files.items()},
    }
    encoded = encode(manifest)
    output.write(f"runs/{run_id}/manifest.json", encoded)
    success = {"manifest_sha256": hashlib.sha256(encoded).hexdigest()}
    output.write(f"runs/{run_id}/_SUCCESS", encode(success))
    point_to(output, run_id, published_at=published_at)


def point_to(output: Store, run_id: str, *, published_at: str = "2001-01-01T00:00:00Z") -> None:
    """Write latest.json."""
    output.write("latest.json", encode({"run_id": run_id, "published_at": published_at}))
