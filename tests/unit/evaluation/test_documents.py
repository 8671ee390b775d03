"""The documents under metrics/: every image, epoch and split has its row."""

from __future__ import annotations

import csv
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from job import storage
from job.config.load import load_settings
from job.config.settings import STAGES, InputSettings
from job.data.duplicates import Duplicates
from job.data.labels import TEST, TRAIN, VALIDATION
from job.data.listing import read_listing
from job.data.prepare import Prepared
from job.data.quarantine import Quarantined
from job.evaluation import curves
from job.evaluation.documents import (
    _baselines,
    answers_of,
    class_weights_document,
    confusion_csv,
    curves_document,
    history_csv,
    metrics_document,
    predictions_csv,
)
from job.evaluation.scores import Scores
from job.evaluation.splits import split_document
from job.training.state import EpochResult, TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable
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


@pytest.fixture
def prepared(listed: manifest.Manifest) -> Prepared:
    """The six images: four to validate on and two to test on, and one more that cannot be used."""
    splits, none = np.array([VALIDATION] * 4 + [TEST] * 2, np.uint8), np.empty(0, np.int64)
    found = Duplicates(
        exact=np.zeros((1, 2), np.int64), near=none, leaking_copies=none, leaking_near=none, twofold=none
    )
    bad = Quarantined(uri="x.jpg", label="c, d", reason="empty", detail="it is empty", size=0)
    return Prepared(usable=listed, splits=splits, rows_of={}, quarantined=[bad], duplicates=found)


@pytest.fixture
def document(listed: manifest.Manifest, scores: dict[str, Scores], prepared: Prepared) -> Callable[..., dict[str, Any]]:
    """A function that returns metrics.json of a history, of the epoch that is kept, and of these scores."""

    def build(
        history: list[EpochResult],
        kept: EpochResult,
        scores: dict[str, Scores] = scores,
        stage_ends: tuple[StageName, ...] = (),
        flags: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        state = TrainingState(history=history, best=min(history, key=lambda epoch: epoch.val_loss))
        ends = dict.fromkeys(stage_ends, scores["validation"].probabilities)
        chosen = load_settings(["--fine_tuning.epochs=3", *flags], {}).settings
        return metrics_document(state, kept, scores, ends, prepared, manifest=listed, settings=chosen)

    return build


def test_metrics(document: Callable[..., dict[str, Any]], scores: dict[str, Scores], listed: manifest.Manifest) -> None:
    """metrics.json has each side's own scores, the epoch that is published beside best and last, and each stage."""
    first, best, last = history = epochs("fine_tuning", 1, (0.5, 0.75), (0.25, 1.0), (0.75, 0.5))
    metrics = document(history, last)

    for name, loss in (("validation", 0.25), ("test", 0.75)):
        rows = scores[name].rows
        expected = split_document(scores[name].probabilities, listed.label[rows], listed.labels, 7, split=name)
        assert expected | {"loss": loss} == metrics[name]
    of_best = {"stage": "fine_tuning", "epoch": 2, "epoch_total": 2, "val_loss": 0.25, "val_accuracy": 1.0}
    of_last = {"stage": "fine_tuning", "epoch": 3, "epoch_total": 3, "val_loss": 0.75, "val_accuracy": 0.5}
    assert (of_last, of_best, of_last) == tuple(metrics[name] for name in ("kept", "best", "last"))
    assert of_best == document(history, best)["kept"]
    expected = {
        "epochs": 3,
        "epochs_saved": 0,
        "restored_epoch": None,
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
    assert first.stage == metrics["kept"]["stage"]


def test_early_stopping(document: Callable[..., dict[str, Any]]) -> None:
    """A stage says how many of its epochs were saved, and with which one's weights it ended."""
    history = epochs("fine_tuning", 1, (0.5, 0.75), (0.25, 1.0), (0.75, 0.5))
    flags = ("--fine_tuning.epochs=10", "--fine_tuning.patience=1", "--fine_tuning.restore")
    stage = document(history, history[1], flags=flags)["stages"]["fine_tuning"]

    assert (3, 7, 2) == (stage["epochs"], stage["epochs_saved"], stage["restored_epoch"])


def test_class_weights() -> None:
    """The weights of the loss are recorded by label; null where there are none."""
    assert {"a": 0.5, "b": 1.5} == class_weights_document(np.float32([0.5, 1.5]), ("a", "b"))
    assert class_weights_document(None, ("a", "b")) is None


def test_history() -> None:
    """The learning rate is the last column; of an epoch of an older version it is empty."""
    first, second = epochs("fine_tuning", 1, (0.5, 0.75), (0.25, 1.0))
    lines = [*csv.DictReader(history_csv([dataclasses.replace(first, learning_rate=1e-5), second]))]

    assert ["epoch_total", "learning_rate"] == [*lines[0]][-2:]
    assert ["1e-05", ""] == [line["learning_rate"] for line in lines]


def test_data_and_majority(document: Callable[..., dict[str, Any]], prepared: Prepared) -> None:
    """The images by label and split are counted; the majority is that of the train split, the threshold the other's."""
    prepared.splits[3:] = TRAIN  # all images of the second label
    [only] = history = epochs("fine_tuning", 1, (0.5, 0.75))
    metrics = document(history, only)

    assert {
        "labels": {
            'a "b"': {"train": 0, "validation": 3, "test": 0},
            "c, d": {"train": 3, "validation": 0, "test": 0},
        },
        "quarantined": 1,
        "duplicates": {"exact": 1, "near": 0, "leaking": 0, "under_two_labels": 0},
        "seen": {},
    } == metrics["data"]
    assert {"label": "c, d", "validation": 0.25, "test": 1.0} == metrics["majority"]
    assert 'a "b"' == metrics["threshold"]["label"]


def test_metrics_without_a_test_side(document: Callable[..., dict[str, Any]], scores: dict[str, Scores]) -> None:
    """Where there are no test images, `test` is null in every place, with its reason."""
    [only] = history = epochs("feature_extraction", 1, (0.5, 0.75))
    metrics = document(history, only, {"validation": scores["validation"]})

    assert metrics["test"] is metrics["majority"]["test"] is metrics["threshold"]["test"] is None
    assert {"test", "majority.test"} <= set(metrics["unavailable"])
    assert {"test"} == set(metrics["threshold"]["unavailable"])


def test_ablation(document: Callable[..., dict[str, Any]]) -> None:
    """It has a row for each stage end that is known; one that an older version did not save is left out."""
    history = [*epochs("feature_extraction", 1, (0.5, 0.75)), *epochs("fine_tuning", 1, (0.25, 1.0))]
    complete = document(history, history[-1], stage_ends=STAGES)
    older = document(history, history[-1], stage_ends=("fine_tuning",))

    assert ["majority", *STAGES, "kept"] == [row["name"] for row in complete["ablation"]]
    assert ["majority", "fine_tuning", "kept"] == [row["name"] for row in older["ablation"]]
    assert {"ablation.feature_extraction"} == set(older["unavailable"]) - set(complete["unavailable"])


def test_more_than_two_labels() -> None:
    """There is no threshold, for the stated reason."""
    three = {"validation": (np.eye(3, dtype=np.float32), np.arange(3))}

    found = _baselines(three, np.array([[1, 1, 0], [2, 1, 0], [1, 1, 0]]), "abc")

    assert found["threshold"] is None
    assert {"threshold", "test", "majority.test"} == set(found["unavailable"])
    assert {"label": "b", "validation": pytest.approx(1 / 3), "test": None} == found["majority"]


def test_curves(listed: manifest.Manifest, scores: dict[str, Scores]) -> None:
    """curves.json has the curves of each split; null for a split without images."""
    answers = answers_of(scores, listed)

    assert curves.curves_document(*answers["test"], listed.labels) == curves_document(answers, listed.labels)["test"]
    assert curves_document({"validation": answers["validation"]}, listed.labels)["test"] is None


def test_confusion() -> None:
    """confusion.csv has a row for each split and true label, and a column for each prediction."""
    answers = {"validation": (np.eye(2)[[0, 1, 1]], np.array([0, 0, 1])), "test": (np.eye(2)[[0]], np.array([1]))}

    rows = list(csv.reader(confusion_csv(answers, ["a", 'b "c"'])))

    assert [
        ["split", "label", "a", 'b "c"'],
        ["validation", "a", "1", "1"],
        ["validation", 'b "c"', "0", "1"],
        ["test", "a", "0", "0"],
        ["test", 'b "c"', "1", "0"],
    ] == rows
