"""docs/operations.md: its queries name fields and events that the log has, and its patch is what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
_, _, QUERIES = PAGE.partition("## Queries for Cloud Logging\n")
QUERIES = QUERIES.partition("\n## ")[0]


@pytest.mark.slow
def test_fields_of_the_queries_are_those_of_a_failure(tmp_path: Path) -> None:
    """The fields that the queries filter by are in the line that a failed run logs."""
    (tmp_path / "input").mkdir()
    command = [
        sys.executable,
        "-m",
        "job",
        "run",
        "--input.uri",
        tmp_path / "input",
        "--output.uri",
        tmp_path / "output",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    last = json.loads(done.stderr.splitlines()[-1])

    assert (3, "run.failed", 3) == (done.returncode, last["event"], last["exit_code"])
    assert set(re.findall(r"jsonPayload\.(\w+)", QUERIES)) <= last.keys()
    row = next(line for line in QUERIES.splitlines() if line.startswith("| why Jobs failed"))
    assert set(re.findall(r"`(\w+)`", row)) <= last.keys()


def test_events_of_the_queries_exist() -> None:
    """Each event that a query names is logged by the job."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "job").rglob("*.py"))

    events = re.findall(r'jsonPayload\.(?:event|message)="([a-z._]+)"', QUERIES)
    assert len(events) >= 5
    assert [] == [event for event in events if f'"{event}"' not in source]


def test_the_patch_is_json() -> None:
    """The patch that makes a Job by hand acceptable under `restricted` is JSON, and has what the page says."""
    [patch] = re.findall(r"--patch '(\{.*?\})' \|", PAGE, re.DOTALL)
    spec = json.loads(patch)["spec"]["template"]["spec"]

    [container] = spec["containers"]
    assert (True, "RuntimeDefault") == (
        spec["securityContext"]["runAsNonRoot"], spec["securityContext"]["seccompProfile"]["type"]
    )  # fmt: skip
    assert {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}} == container["securityContext"]
