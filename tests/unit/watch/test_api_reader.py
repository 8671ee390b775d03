"""The cluster that `finetune watch` reads: a missing kubeconfig is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_no_cluster(tmp_path: Path) -> None:
    """Without a kubeconfig it exits with 2, naming the variable."""
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "job", "watch", "flowers"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert 2 == done.returncode
    assert "KUBECONFIG" in done.stderr
