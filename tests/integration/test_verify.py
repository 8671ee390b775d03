"""`finetune verify` as a process, on a bucket."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from published_runs import FILES, publish

from job import storage
from job.storage.objects import CHUNK_BYTES

if TYPE_CHECKING:
    from job.storage import Store


def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "job", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def run(bucket: str) -> Store:
    """Return a published run with a file of several pieces."""
    return publish(
        storage.open_store(f"gs://{bucket}/trained/runs/r"), FILES | {"model/large": bytes(2 * CHUNK_BYTES + 1)}
    )


def test_a_bucket(run: Store, bucket: str) -> None:
    """A run is verified by its URI and by that of the latest one; nothing is written."""
    output = storage.open_store(f"gs://{bucket}/trained")
    output.write("latest.json", b'{"run_id": "r", "published_at": "2026-01-01T00:00:00Z"}')
    before = list(output.list())

    table, document = verify(run.uri), verify("--json", f"gs://{bucket}/trained/latest")

    assert (0, 0) == (table.returncode, document.returncode), table.stderr
    assert table.stdout.splitlines()[-1].startswith(f"{run.uri}: {len(FILES) + 2} files, ")
    assert (run.uri, True) == tuple(json.loads(document.stdout)[key] for key in ("run_uri", "verified"))
    assert before == list(output.list())


def test_overwritten(run: Store) -> None:
    """An object that was overwritten with other bytes of the same size ends with exit code 3 and its name."""
    run.write("model/labels.txt", FILES["model/labels.txt"][::-1])

    done = verify(run.uri, "--log.format", "console")

    assert 3 == done.returncode
    assert "the first: model/labels.txt: its crc32c is" in done.stderr
