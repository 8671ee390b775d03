"""`finetune watch` as a process, on a bucket."""

from __future__ import annotations

import json
import subprocess
import sys

from job import storage


def watch(uri: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "job", "watch", uri]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_newest_run_of_an_output(bucket: str) -> None:
    """The URI of an output stands for the run that reported last; its exit code is that of `watch`."""
    output = storage.open_store(f"gs://{bucket}/trained")
    for run, state in (("new", {"state": "running"}), ("old", {"state": "succeeded"})):
        output.write(f"runs/{run}/status.json", json.dumps(state).encode())
    output.write("runs/new/status.json", b'{"state": "failed", "reason": "Data", "message": "no pictures"}')
    output.write("latest.json", b'{"run_id": "old", "published_at": "2026-01-01T00:00:00Z"}')

    newest, old, none = (watch(f"gs://{bucket}/{path}") for path in ("trained", "trained/runs/old", "trained/runs"))

    assert [3, 0, 3] == [done.returncode for done in (newest, old, none)], newest.stderr
    assert f"gs://{bucket}/trained/runs/new" in newest.stderr
    assert "no pictures" in newest.stderr
    assert "output.uri" in none.stderr
