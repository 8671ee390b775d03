"""The documents under metrics/: every image, epoch and split has its row."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from job import storage
from job.config.settings import InputSettings
from job.data import manifest
from job.data.listing import read_listing
from job.evaluation.metrics import metrics_document, predictions_csv
from job.evaluation.scores import Scores
from job.training.state import EpochResult, TrainingState

if TYPE_CHECKING:
    from pathlib import Path

    from job.config.settings import StageName
    from job.data import manifest


@pytest.fixture
def listed(tmp_path: Path) -> manifest.Manifest:
    """Six images of two classes, whose names need quoting."""
    for number in range(6):
        path = tmp_path / ('a "b"', "c, d")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 5)
    return read_listing(InputSettings(uri=str(tmp_path)), storage.open_store)[0]


@pytest.fixture
def scores() -> dict[str, Scores]:
    """Four images of the validation side and two of the test side."""
    random = np.random.default_rng(0).dirichlet((1, 1), 6).astype(np.float32)
    return {
        name: Scores(split=name, rows=rows, probabilities=random[rows], loss=loss, accuracy=accuracy)
        for name, rows, loss, accuracy in (
            ("validation", np.arange(4), 0.25, 0.75),
            ("test", np.arange(4, 6), 0.75, 0.5),
        )
    }


def epochs(stage: StageName, first: int, *measured: tuple[float, float]) -> list[EpochResult]:
    """Return a stage's epochs, counted from `first`, with these validation losses and accuracies."""
    return [
        EpochResult(
            stage=stage,
            epoch=first + n,
            loss=0.5 - n / 10,
            accuracy=0.5 + n / 10,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            seconds=2.0 + n,
            images_per_second=10.0 + n,
            input_wait=0.25,
        )
        for n, (val_loss, val_accuracy) in enumerate(measured)
    ]


def test_predictions(listed: manifest.Manifest, scores: dict[str, Scores]) -> None:
    """predictions.csv has a row for each held-out image, and probabilities that come back bit for bit."""
    lines = list(predictions_csv(listed, scores))
    rows = list(csv.DictReader(lines))

    assert 1 + 6 == len(lines)
    assert listed.uri(0) == rows[0]["uri"]
    assert ["validation"] * 4 + ["test"] * 2 == [row["split"] for row in rows]
    assert [listed.labels[label] for label in listed.label] == [row["label"] for row in rows]
    everything = np.concatenate([side.probabilities for side in scores.values()])
    columns = [f"probability_{label}" for label in listed.labels]
    assert np.array_equal(everything, np.array([[row[column] for column in columns] for row in rows], np.float32))
    assert [listed.labels[n] for n in everything.argmax(axis=1)] == [row["prediction"] for row in rows]


def test_metrics(scores: dict[str, Scores]) -> None:
    """metrics.json has each side's own scores, the epoch that is published beside best and last, and each stage."""
    first, best, last = epochs("fine_tuning", 1, (0.5, 0.75), (0.25, 1.0), (0.75, 0.5))
    state = TrainingState(history=[first, best, last], best=best)
    metrics = metrics_document(state, last, scores, timing={"total": 1.0})

    assert {"loss": 0.25, "accuracy": 0.75, "images": 4} == metrics["validation"]
    assert {"loss": 0.75, "accuracy": 0.5, "images": 2} == metrics["test"]
    of_best = {"stage": "fine_tuning", "epoch": 2, "epoch_total": 2, "val_loss": 0.25, "val_accuracy": 1.0}
    of_last = {"stage": "fine_tuning", "epoch": 3, "epoch_total": 3, "val_loss": 0.75, "val_accuracy": 0.5}
    assert (of_last, of_best, of_last) == tuple(metrics[name] for name in ("kept", "best", "last"))
    assert of_best == metrics_document(state, best, scores)["kept"]
    expected = {
        "epochs": 3,
        "loss": last.loss,
        "accuracy": last.accuracy,
        "val_loss": 0.75,
        "val_accuracy": 0.5,
        "best_val_accuracy": 1.0,
        "seconds": 9.0,
        "images_per_second": 11.0,
        "input_wait": 0.25,
    }
    assert {"feature_extraction": None, "fine_tuning": expected} == metrics["stages"]
    assert {"total": 1.0} == metrics["timing"]


def test_metrics_without_a_test_side(scores: dict[str, Scores]) -> None:
    """Where there are no test images, `test` is null."""
    [only] = epochs("feature_extraction", 1, (0.5, 0.75))
    state = TrainingState(history=[only], best=only)

    assert metrics_document(state, only, {"validation": scores["validation"]})["test"] is None
