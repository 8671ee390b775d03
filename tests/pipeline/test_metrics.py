"""The metrics of a whole run: from its predictions, of imbalanced data, and after a resume."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from runs import ONE_STAGE, WITH_REPORT, At, Facts, draw, only_run, run, strict_json

from job.evaluation import metrics_schema
from job.evaluation.curves import curves_document
from job.evaluation.splits import split_document
from job.evaluation.tuning import calibration_document, threshold_document

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS = {"seconds", "images_per_second", "input_wait"}


def read_metrics(output: Path) -> dict[str, Any]:
    """Return the metrics.json of the one run of an output."""
    return strict_json((only_run(output) / "metrics/metrics.json").read_bytes())


def predicted(output: Path, split: str) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Return the probabilities, the true labels and the labels' names that predictions.csv has of a split."""
    header, *rows = csv.reader((only_run(output) / "metrics/predictions.csv").read_text().splitlines())
    names = [column.removeprefix("probability_") for column in header[4:]]
    rows = [row for row in rows if row[1] == split]
    return np.array([row[4:] for row in rows], np.float32), np.array([names.index(row[2]) for row in rows]), names


def test_schema(published: Path) -> None:
    """metrics.json matches the schema that is published beside it."""
    folder = only_run(published) / "metrics"

    metrics_schema.Metrics.model_validate_json((folder / "metrics.json").read_bytes())
    assert metrics_schema.schema_text() == (folder / "metrics.schema.json").read_text()


def test_metrics_follow_from_predictions(published: Path) -> None:
    """The metrics, the temperature, the threshold and the curves are those of predictions.csv, to the bit."""
    metrics, answers = read_metrics(published), predicted(published, "validation")
    majority = metrics["data"]["labels"]
    rarer = 1 - max((0, 1), key=lambda number: majority[answers[2][number]]["train"])

    assert split_document(*answers, 7) | {"loss": metrics["validation"]["loss"]} == metrics["validation"]
    assert metrics["validation"]["log_loss"] == pytest.approx(metrics["validation"]["loss"], rel=1e-5)
    assert calibration_document(*answers[:2]) == metrics["calibration"]
    assert threshold_document({"validation": answers[:2]}, answers[2], rarer) == metrics["threshold"]
    curves = strict_json((only_run(published) / "metrics/curves.json").read_bytes())
    assert {"validation": curves_document(*answers), "test": None} == curves


def test_ablation(published: Path) -> None:
    """It has the majority, both stages and what is published, which is one of them."""
    metrics = read_metrics(published)
    rows = {row.pop("name"): row for row in metrics["ablation"]}

    assert ["majority", "feature_extraction", "fine_tuning", "kept"] == list(rows)
    assert rows["kept"] == rows[metrics["kept"]["stage"]]
    assert rows["kept"].items() >= {name: metrics["validation"][name] for name in ("accuracy", "log_loss")}.items()
    assert metrics["majority"]["validation"] == rows["majority"]["accuracy"]


def test_one_answer_for_all(tmp_path: Path) -> None:
    """Of 60 and 4 images that look alike, the rare class is never predicted: that is warned of, and it is named."""
    for number in range(64):
        draw(tmp_path / "in" / ("ok" if number < 60 else "defect") / f"{number}.png", shade=128, seed=number)
    warned, evaluated = Facts("metrics.warned"), Facts("run.evaluated")
    training = ("--feature_extraction.epochs", "3", "--feature_extraction.learning_rate", "0.01")
    run("--input.uri", tmp_path / "in", "--output.uri", tmp_path / "out", *ONE_STAGE, *training,
        listeners=[warned, evaluated])  # fmt: skip

    metrics = read_metrics(tmp_path / "out")
    assert ["one_answer", "majority", "recall_zero", "few_images"] == [one["code"] for one in metrics["warnings"]]
    assert [{one["code"]: one["text"] for one in metrics["warnings"]}] == warned.seen
    assert "'defect'" in warned.seen[0]["recall_zero"]
    validation = metrics["validation"]
    assert validation["accuracy"] > 0.85
    assert (0.5, 0.0, None) == (
        validation["balanced_accuracy"],
        *(validation["labels"]["defect"][name] for name in ("recall", "precision")),
    )
    assert [0.5, 0.5] == validation["intervals"]["balanced_accuracy"]
    [facts] = evaluated.seen
    assert {"label": "defect", "recall": 0.0} == facts["validation"]["lowest_recall"]
    assert list(warned.seen[0]) == facts["warnings"]
    assert ["majority", "feature_extraction", "kept"] == [row["name"] for row in metrics["ablation"]]


def test_resumed_run_has_the_same_metrics(published: Path, pictures: Path, tmp_path: Path) -> None:
    """A run that stops after stage 2 and resumes has the metrics of an undisturbed one, the ablation included."""

    def stop() -> None:
        raise KeyboardInterrupt

    arguments = ("--input.uri", pictures, "--output.uri", tmp_path, *WITH_REPORT)
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, listeners=[At("model.chosen", stop)])
    run(*arguments)

    expected, resumed = read_metrics(published), read_metrics(tmp_path)
    assert (1, 2) == (expected["timing"]["starts"], resumed["timing"]["starts"])
    for metrics in (expected, resumed):
        del metrics["timing"], metrics["memory"]
        for name in ("max_difference", "keras_max_difference"):  # only `published` is verified
            del metrics["verification"][name]
        for stage in metrics["stages"].values():
            assert {stage.pop(key) for key in SECONDS}
    assert expected == resumed
    stages = {row["name"]: row["log_loss"] for row in resumed["ablation"]}
    assert stages["feature_extraction"] != stages["fine_tuning"]
