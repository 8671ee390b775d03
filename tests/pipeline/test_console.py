"""What a whole run writes to a terminal."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import terminal
from runs import SMALL, only_run, strict_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("columns", [80, 160])
def test_no_line_is_wrapped(pictures: Path, tmp_path: Path, columns: int) -> None:
    """Neither the log nor the bars nor the closing block have a line that is wider than the terminal."""
    command = [sys.executable, "-m", "job", "run", *SMALL, "--input.uri", str(pictures), "--output.uri", "out"]
    command += ["--fine_tuning.epochs", "2"]
    screen = terminal.Screen(columns)
    for _, data in terminal.run(command, columns=columns, folder=tmp_path):
        screen.write(data)
    lines = screen.text()

    assert 0 == screen.wraps, "\n".join(lines)
    epochs = [line.split()[2] for line in lines if re.match(r"[0-9:]{8} epoch ", line)]
    assert ["1/1", "1/2", "2/2"] == epochs
    metrics = strict_json((only_run(tmp_path / "out") / "metrics/metrics.json").read_bytes())
    block = list(itertools.dropwhile(lambda line: line != "published", lines))
    assert f"  accuracy  val_acc {metrics['validation']['accuracy']:.3f}, " in "\n".join(block)
    assert f"  model     out/runs/{only_run(tmp_path / 'out').name}/model/saved_model" in block
    kept = metrics["kept"]
    assert any(line.startswith(f"  kept      {kept['stage']}, epoch {kept['epoch']} of ") for line in block)


def test_summary_alone() -> None:
    """`finetune summary` prints its table, and neither TensorFlow nor the job writes anything else."""
    command = [sys.executable, "-m", "job", "summary", "--model.alpha", "0.35"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "" == done.stderr
    assert done.stdout.startswith("layer ")
