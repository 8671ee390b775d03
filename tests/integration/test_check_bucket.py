"""The program that `helm test` runs in a Pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from job import storage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("uri", "code"), [("gs://BUCKET/models", 0), ("gs://no-such-bucket-0/models", 3)], ids=["bucket", "none"]
)
def test_check_of_the_bucket(bucket: str, tmp_path: Path, uri: str, code: int) -> None:
    """`helm test` writes, reads and deletes in the output, exits as a run would, and leaves nothing."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"output": {"uri": uri.replace("BUCKET", bucket)}}))
    command: list[str | Path] = [sys.executable, ROOT / "helm/files/check_bucket.py", "--config", file]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)

    assert code == done.returncode, done.stderr
    if code == 0:
        assert [] == list(storage.open_store(f"gs://{bucket}").list())
