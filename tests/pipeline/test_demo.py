"""`finetune demo` does all of it, from one emulated bucket to another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from runs import SMALL, strict_json

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("whole")
def test_demo(tmp_path: Path) -> None:
    """The demo ends with the accuracy of each stage and where model and metrics lie, and leaves them there."""
    environment = {key: value for key, value in os.environ.items() if key != "STORAGE_EMULATOR_HOST"}
    command = [sys.executable, "-m", "job", "demo", *SMALL]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr[-2000:]
    accuracies = dict(re.findall(r"(feature_extraction|fine_tuning) +best (\d\.\d{3}), last .*, 1 epochs", done.stdout))
    [folder] = (tmp_path / "finetune-demo/runs").iterdir()
    metrics = strict_json((folder / "metrics/metrics.json").read_bytes())
    assert {name: f"{stage['val_accuracy']:.3f}" for name, stage in metrics["stages"].items()} == accuracies
    assert f"accuracy  val_acc {metrics['validation']['accuracy']:.3f}, " in done.stdout
    assert f"balanced  {metrics['validation']['balanced_accuracy']:.3f} on validation, " in done.stdout
    assert f"model     finetune-demo/runs/{folder.name}/model/saved_model" in done.stdout
    assert (folder / "model/model.keras").exists()
    assert '"uri": "gs://demo-pictures/' in (folder / "data/manifest.jsonl").read_text()
