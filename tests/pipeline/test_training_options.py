"""Whole runs with the options of training: schedules, early stopping, class weights; and `finetune lr-find`."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import pytest
from runs import SMALL, Facts, draw, only_run, run, strict_json
from structlog.testing import capture_logs

from job.commands import lr_find
from job.evaluation.metrics_schema import Metrics
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = (
    *("--feature_extraction.epochs", "6", "--feature_extraction.schedule", "cosine"),
    *("--feature_extraction.patience", "1", "--feature_extraction.min_delta", "100"),
    *("--feature_extraction.restore", "true", "--feature_extraction.weight_decay", "0.01"),
    *("--feature_extraction.label_smoothing", "0.1", "--fine_tuning.warmup_epochs", "0.5"),
    *("--fine_tuning.clip_norm", "1", "--fine_tuning.patience", "3", "--report.enabled", "true"),
    *("--train.class_weight", "sqrt", "--train.initial_bias", "prior"),
)


@pytest.fixture
def imbalanced(tmp_path: Path) -> Path:
    """Forty dark images and ten bright ones."""
    for label, shade, images in (("dark", 60, 40), ("bright", 190, 10)):
        for number in range(images):
            draw(tmp_path / "in" / label / f"{number}.png", shade=shade, seed=number + shade)
    return tmp_path / "in"


def test_run_with_every_option(imbalanced: Path, tmp_path: Path) -> None:
    """What was weighted, scheduled and saved is in the run's files; what has no effect is warned of."""
    warned, stopped = Facts("settings.had_no_effect"), Facts("stage.stopped_early")
    arguments = ("--input.uri", imbalanced, "--output.uri", tmp_path / "out", *OPTIONS)
    run(*arguments, listeners=[warned, stopped])

    assert [{"fine_tuning.patience"}] == [set(facts) for facts in warned.seen]
    assert [{"stage": "feature_extraction", "epochs": 2, "epochs_saved": 4}] == stopped.seen
    folder = only_run(tmp_path / "out")
    metrics = strict_json((folder / "metrics" / "metrics.json").read_bytes())
    Metrics.model_validate(metrics, strict=False)
    weights, images = metrics["class_weights"], metrics["data"]["labels"]
    ratio = (images["dark"]["train"] / images["bright"]["train"]) ** 0.5
    assert weights["bright"] == pytest.approx(ratio * weights["dark"])
    first, second = metrics["stages"].values()
    assert (2, 4) == (first["epochs"], first["epochs_saved"])
    assert first["restored_epoch"] in (1, 2)
    assert (1, 0, None) == (second["epochs"], second["epochs_saved"], second["restored_epoch"])
    assert metrics["validation"]["loss"] != pytest.approx(metrics["kept"]["val_loss"], rel=1e-3)

    rows = [*csv.DictReader((folder / "metrics" / "history.csv").read_text().splitlines())]
    rates = [float(row["learning_rate"]) for row in rows]
    assert 1e-4 > rates[0] > rates[1] > 5e-5
    assert pytest.approx(1e-5) == rates[2]
    assert "Class weights (sqrt)" in (folder / "model_card.md").read_text()
    page = (folder / "report" / "index.html").read_text()
    assert "class weight" in page
    assert 'aria-label="Learning rate"' in page


def test_lr_find(imbalanced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage has its curve; beside the two files nothing is left, neither a run nor a cache."""
    out, cache = tmp_path / "rates", tmp_path / "cache"
    cache.mkdir()
    flags = ["--out", str(out), "--steps", "12", "--cache.dir", str(cache), "--feature_extraction.batch_size", "4"]
    with capture_logs():
        command = lr_find.parse([*flags, "--input.uri", str(imbalanced), *SMALL, "--train.class_weight", "balanced"])
        assert 0 == command.execute(Progress([]))

    assert {"lr-find.json", "lr-find.png"} == {path.name for path in out.iterdir()}
    assert [] == [*cache.iterdir()]
    assert (out / "lr-find.png").read_bytes().startswith(b"\x89PNG")
    stages = json.loads((out / "lr-find.json").read_text())["stages"]
    assert ["feature_extraction", "fine_tuning"] == list(stages)
    for stage in stages.values():
        assert 1 <= len(stage["rates"]) == len(stage["losses"]) <= 12
        assert 1e-7 == pytest.approx(stage["rates"][0])
    assert "fine_tuning" in capsys.readouterr().out
