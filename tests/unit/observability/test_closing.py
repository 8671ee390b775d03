"""The closing block of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

from job.observability import closing

if TYPE_CHECKING:
    from pathlib import Path

STAGE = {"epochs": 10, "val_accuracy": 0.8049, "best_val_accuracy": 0.82, "seconds": 1.4}
METRICS: dict[str, Any] = {
    "validation": {"accuracy": 69 / 77, "images": 77, "loss": 0.3},
    "test": {"accuracy": 0.5, "images": 1200, "loss": 0.3},
    "kept": {"stage": "fine_tuning", "epoch": 9, "epoch_total": 19, "val_loss": 0.3012, "val_accuracy": 69 / 77},
    "stages": {"feature_extraction": STAGE, "fine_tuning": {**STAGE, "seconds": 3723.0, "best_val_accuracy": 0.909}},
}


def test_block() -> None:
    """It has the outcome, the accuracy with its counts, the kept epoch, both stages, the model and how to load it."""
    assert [
        "",
        "published",
        "",
        "  accuracy  val_acc 0.896, 69 of 77 validation images",
        "            test_acc 0.500, 600 of 1,200 test images",
        "  kept      fine_tuning, epoch 9 of 10, val_loss 0.301",
        "  stages    feature_extraction  best 0.820, last 0.805, 10 epochs in 0:01",
        "            fine_tuning         best 0.909, last 0.805, 10 epochs in 1:02:03",
        "  model     gs://b/runs/r/model/saved_model",
        "  metrics   gs://b/runs/r/metrics/metrics.json",
        '  next      in Python: tf.saved_model.load(model).signatures["serve_bytes"]',
        "",
    ] == closing.block("published", "gs://b/runs/r", METRICS)


def test_imbalanced_data() -> None:
    """The balanced accuracy of each split is shown with its lowest recall, and what there is to warn of."""
    lowest = {"balanced_accuracy": 0.5, "lowest_recall": {"label": "defect " * 9, "recall": 0.0}}
    metrics = {name: METRICS[name] | lowest for name in ("validation", "test")}
    warnings = ["one_answer", "majority", "recall_zero", "few_images", "stage_1_kept"]

    lines = closing.block("published", "gs://b/runs/r", METRICS | metrics | {"warnings": warnings})

    assert [
        "  balanced  0.500 on validation, lowest recall 0.000 of 'defect defect defect d…",
        "            0.500 on test, lowest recall 0.000 of 'defect defect defect d…",
    ] == lines[5:7]
    assert "  warnings  one_answer, majority, recall_zero, few_images, stage_1_kept" in lines
    assert max(map(len, lines)) <= 80


def test_wide_label() -> None:
    """A label whose letters take two columns is shortened by its columns."""
    lowest = {"balanced_accuracy": 0.5, "lowest_recall": {"label": "猫" * 30, "recall": 0.0}}

    lines = closing.block("published", "/r", METRICS | {"validation": METRICS["validation"] | lowest})

    [line] = [line for line in lines if line.startswith("  balanced")]
    assert cell_len(line) <= 80
    assert line.endswith(("猫…", "猫 …"))


def test_gate() -> None:
    """Each check of the gate has its outcome and both values; one without a value says so."""
    names = ("name", "value", "required", "passed")
    rows = [
        ("min_accuracy", 0.896, 0.9, False),
        ("min_auc", None, 0.5, False),
        ("min_recall", 0.75, 0.5, True),
        ("no_worse_than_latest", None, None, None),
    ]
    gate = {"passed": False, "checks": [dict(zip(names, row, strict=True)) for row in rows]}

    lines = closing.block("quality gate failed", "/r", {**METRICS, "gate": gate})

    assert [
        "  gate      min_accuracy failed: 0.8960, at least 0.9000 is required",
        "            min_auc failed: unknown, at least 0.5000 is required",
        "            min_recall passed: 0.7500, at least 0.5000 is required",
        "            no_worse_than_latest not judged",
    ] == lines[8:12]


def test_one_stage() -> None:
    """A stage that was skipped and a test split that is empty are left out."""
    stages = {"feature_extraction": STAGE, "fine_tuning": None}
    kept = {**METRICS["kept"], "stage": "feature_extraction"}

    text = "\n".join(closing.block("published", "/r", {**METRICS, "test": None, "stages": stages, "kept": kept}))

    assert "feature_extraction, epoch 9 of 10" in text
    assert "fine_tuning" not in text
    assert "test" not in text


def test_path_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is relative, so that it is short; another path is whole."""
    monkeypatch.chdir(tmp_path)
    for run_uri, model in ((f"{tmp_path}/out/runs/r", "out/runs/r"), ("/elsewhere/runs/r", "/elsewhere/runs/r")):
        assert f"  model     {model}/model/saved_model" in closing.block("published", run_uri, METRICS)


def test_metrics_of_another_version() -> None:
    """What is missing is an error, so that no block of half the facts is shown."""
    with pytest.raises(KeyError):
        closing.block("published", "/r", {"validation": METRICS["validation"]})


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")])
def test_duration(seconds: float, text: str) -> None:
    """Minutes and seconds; hours where there are some."""
    assert text == closing.duration(seconds)
