"""A whole run by two replicas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import light_runs
from runs import draw, only_run, run

from job.training import strategy

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from job.training.strategy import Replicas


def test_run_of_two_replicas(replicas: Replicas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stages, augmented features, evaluation and the export, verified: the run is published with its replicas."""
    monkeypatch.setattr(strategy, "create", lambda *_, **__: replicas)  # one strategy in a process: see the fixture
    for n in range(6):
        draw(tmp_path / "in/dark" / f"{n}.jpg", shade=60, seed=n)
        draw(tmp_path / "in/light" / f"{n}.jpg", shade=190, seed=100 + n)
    options = ("--augmentation.flip", "horizontal", "--augmentation.mixup", "0.4", "--feature_extraction.views", "2")

    with light_runs.here(light_runs.SHALLOW):
        names = run("--input.uri", tmp_path / "in", "--output.uri", tmp_path / "out", *options)

    assert "run.succeeded" in names
    folder = only_run(tmp_path / "out")
    metrics = json.loads((folder / "metrics/metrics.json").read_text())
    assert 0 <= metrics["validation"]["accuracy"] <= 1
    assert metrics["verification"]["max_difference"] <= metrics["verification"]["tolerance"]
    assert 2 == json.loads((folder / "manifest.json").read_text())["provenance"]["device"]["replicas"]
