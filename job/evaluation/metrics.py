"""The documents under metrics/: metrics.json, history.csv and predictions.csv."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

from job.config.settings import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from job.data.manifest import Manifest
    from job.evaluation.scores import Scores
    from job.training.state import EpochResult, TrainingState


def metrics_document(
    state: TrainingState, kept_epoch: EpochResult, scores: dict[str, Scores], **extra: object
) -> dict[str, object]:
    """Return metrics.json; missing values are null."""
    assert state.best is not None, "a run has at least one epoch"
    by_stage = {stage: [result for result in state.history if result.stage == stage] for stage in STAGES}
    return {
        "validation": scores["validation"].document(),
        "test": scores["test"].document() if "test" in scores else None,
        "kept": _epoch_summary(kept_epoch, state),
        "best": _epoch_summary(state.best, state),
        "last": _epoch_summary(state.history[-1], state),
        "micro_batch": state.micro_batch,
        "predict_batch": state.predict_batch,
        "feature_batch": state.feature_batch,
        "learning_rate_scale": state.learning_rate_scale,
        "stages": {stage: _stage_summary(results) for stage, results in by_stage.items()},
        **extra,
    }


def _epoch_summary(result: EpochResult, state: TrainingState) -> dict[str, object]:
    """Return the key and the validation results of an epoch."""
    names = ("stage", "epoch", "val_loss", "val_accuracy")
    return {name: getattr(result, name) for name in names} | {"epoch_total": state.epoch_total(result)}


def _stage_summary(results: list[EpochResult]) -> dict[str, object] | None:
    """Return the last epoch and the totals of a stage; None for a skipped stage."""
    if not results:
        return None
    last = results[-1]
    return {
        "epochs": len(results),
        "loss": last.loss,
        "accuracy": last.accuracy,
        "val_loss": last.val_loss,
        "val_accuracy": last.val_accuracy,
        "best_val_accuracy": max(result.val_accuracy for result in results),
        "seconds": sum(result.seconds for result in results),
        "images_per_second": float(np.mean([result.images_per_second for result in results])),
        "input_wait": float(np.mean([result.input_wait for result in results])),
    }


EPOCH_COLUMNS = ("stage", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "images_per_second")


def history_csv(history: list[EpochResult]) -> Iterator[str]:
    """Yield the lines of history.csv: one row per epoch. `epoch` counts in each stage, `epoch_total` across both."""
    yield _csv_line([*EPOCH_COLUMNS, "epoch_total"])
    for epoch_total, result in enumerate(history, 1):
        yield _csv_line([*(getattr(result, column) for column in EPOCH_COLUMNS), epoch_total])


def predictions_csv(manifest: Manifest, scores: dict[str, Scores]) -> Iterator[str]:
    """Yield the lines of predictions.csv: one row per held-out image, with one probability column per label."""
    yield _csv_line(["uri", "split", "label", "prediction", *(f"probability_{label}" for label in manifest.labels)])
    for scored in scores.values():
        for row, probabilities in zip(scored.rows.tolist(), scored.probabilities, strict=True):
            label, prediction = manifest.labels[manifest.label[row]], manifest.labels[int(probabilities.argmax())]
            columns = [f"{probability:.9g}" for probability in probabilities.tolist()]
            yield _csv_line([manifest.uri(row), scored.split, label, prediction, *columns])


def _csv_line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
