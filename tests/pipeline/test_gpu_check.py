"""`make gpu-check` at its small size: the same script, on the CPU."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu_check.py"


@pytest.mark.long
def test_gpu_check(tmp_path: Path) -> None:
    """Every case is published, a stopped run resumes to the same bits, and a table says how fast each one was."""
    results = tmp_path / "RESULTS.md"
    command = [sys.executable, SCRIPT, "--small", "--results", results]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    table = [line.strip("| ").split(" | ") for line in results.read_text().splitlines() if line.startswith("| ")]
    _, _, *rows = table
    *runs, stage_1_calls, stage_2_calls, (same_bits, answer, *_), (whole, seconds, *_) = rows
    names = ["float32", "float32, XLA", "resumed after SIGTERM", "out of memory"]
    assert names == [row[0] for row in runs]
    for _, published, accuracy, stage_1, stage_2, wait, validation, *_ in runs[:-1]:
        outcome, difference = published.split("; ")
        assert "yes" == outcome
        assert float(difference) <= 1e-3
        assert 0 <= float(accuracy) <= 1
        assert float(stage_1) > 0
        assert float(stage_2) > 0
        assert 0 <= float(wait.rstrip("%")) <= 100
        assert 0 < float(validation.rstrip("%")) < 100
    assert "not measured: it needs a GPU" == runs[-1][1]
    for number, (name, ratios, *_) in enumerate((stage_1_calls, stage_2_calls), 1):
        assert name.startswith(f"stage {number}, ")
        assert re.fullmatch(r"two calls a step: [\d.]+x, one call a step: [\d.]+x", ratios)
    assert ("resumed run ends in the same bits", "yes") == (same_bits, answer)
    assert "whole check" == whole
    assert float(seconds.removesuffix(" s")) > 0
