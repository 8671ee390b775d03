"""Files that are generated from the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_files_are_current() -> None:
    """Tables, the chart and, where there is a helm, the plain manifests: a stale one is named with `make generated`."""
    command: list[str | Path] = [sys.executable, ROOT / "scripts/generate.py", "--check"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert (0, "") == (done.returncode, done.stdout), done.stderr
