"""The documents under metrics/: metrics.json, curves.json, confusion.csv, history.csv and predictions.csv."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from job.config.settings import STAGES
from job.data import split
from job.data.labels import SPLIT_NAMES
from job.evaluation import ablation, caveats, curves, splits, tuning
from job.training import early_stopping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from job.config.settings import Settings, StageName, StageSettings
    from job.data.manifest import Manifest
    from job.data.prepare import Prepared
    from job.evaluation.scores import Scores
    from job.training.state import EpochResult, TrainingState

Document = dict[str, Any]
Answers = dict[str, "tuple[NDArray[Any], NDArray[Any]]"]
"""Split -> probabilities, float32 [n, labels], and true labels, int [n]."""


def answers_of(scores: Mapping[str, Scores], manifest: Manifest) -> Answers:
    """Return the probabilities and the true labels of each split."""
    return {name: (scored.probabilities, manifest.label[scored.rows]) for name, scored in scores.items()}


def metrics_document(
    state: TrainingState,
    kept_epoch: EpochResult,
    scores: Mapping[str, Scores],
    stage_ends: Mapping[StageName, NDArray[Any]],
    prepared: Prepared,
    *,
    manifest: Manifest,
    settings: Settings,
) -> Document:
    """Return what metrics.json has of the model and its data; missing values are null.

    Args:
        state: at the end of training.
        kept_epoch: the epoch whose weights are published.
        scores: of the published model, by split.
        stage_ends: the probabilities of the models at the end of the stages, for the validation images.
        prepared: the split.
        manifest: of all images.
        settings: of the run; `run.seed` is that of the bootstrap.
    """
    answers, seed = answers_of(scores, manifest), settings.run.seed
    images = split.counts(prepared.usable, prepared.splits)
    document = {
        **_splits_document(scores, answers, manifest.labels, seed),
        **_training_document(state, kept_epoch, settings),
        **_baselines(answers, images, manifest.labels),
        "ablation": ablation.ablation_rows(*answers["validation"], stage_ends, images[:, 0], seed),
        "data": {
            "labels": {
                label: dict(zip(SPLIT_NAMES.values(), row, strict=True))
                for label, row in zip(manifest.labels, images.tolist(), strict=True)
            },
            "quarantined": len(prepared.quarantined),
            "duplicates": prepared.duplicates.counts(),
            "seen": dict(prepared.seen),
        },
    }
    if document["stages"]["feature_extraction"] and "feature_extraction" not in stage_ends:
        reason = "an older version saved the state at the end of stage 1"
        document["unavailable"]["ablation.feature_extraction"] = reason
    return document | {"warnings": caveats.find(document)}


def class_weights_document(weights: NDArray[Any] | None, names: Sequence[str]) -> dict[str, float] | None:
    """Return the weight of each label in the training loss, of float32 [labels]; None where all count the same."""
    return None if weights is None else dict(zip(names, weights.tolist(), strict=True))


def _splits_document(scores: Mapping[str, Scores], answers: Answers, names: Sequence[str], seed: int) -> Document:
    """Return the metrics of both splits; "test" is None without test images."""
    documents = {
        name: {"accuracy": scored.accuracy, "loss": scored.loss, "images": len(scored.rows)}
        | splits.split_document(*answers[name], names, seed, split=name)
        for name, scored in scores.items()
    }
    return {"validation": documents["validation"], "test": documents.get("test")}


def _baselines(answers: Answers, images: NDArray[Any], names: Sequence[str]) -> Document:
    """Return the majority's accuracy, the temperature and the threshold, and why `threshold` is None.

    Args:
        answers: of the published model.
        images: int [labels, 3], by split.
        names: of the labels.
    """
    majority = int(images[:, 0].argmax())
    shares = {name: float((labels == majority).mean()) for name, (_, labels) in answers.items()}
    unavailable = {} if "test" in answers else dict.fromkeys(("test", "majority.test"), "there are no test images")
    threshold = None
    if len(names) == 2:
        threshold = tuning.threshold_document(answers, names, 1 - majority)
    else:
        unavailable["threshold"] = "it is computed for two labels only"
    return {
        "majority": {"label": names[majority], "validation": shares["validation"], "test": shares.get("test")},
        "calibration": tuning.calibration_document(*answers["validation"]),
        "threshold": threshold,
        "unavailable": unavailable,
    }


def _training_document(state: TrainingState, kept_epoch: EpochResult, settings: Settings) -> Document:
    """Return the fields about the epochs and the batches."""
    assert state.best is not None, "a run has at least one epoch"
    return {
        "kept": _epoch_summary(kept_epoch, state),
        "best": _epoch_summary(state.best, state),
        "last": _epoch_summary(state.history[-1], state),
        "micro_batch": state.micro_batch,
        "predict_batch": state.predict_batch,
        "feature_batch": state.feature_batch,
        "learning_rate_scale": state.learning_rate_scale,
        "stages": {stage: _stage_summary(state.results(stage), getattr(settings, stage)) for stage in STAGES},
    }


def _epoch_summary(result: EpochResult, state: TrainingState) -> dict[str, object]:
    """Return the key and the validation results of an epoch."""
    names = ("stage", "epoch", "val_loss", "val_accuracy")
    return {name: getattr(result, name) for name in names} | {"epoch_total": state.epoch_total(result)}


def _stage_summary(results: list[EpochResult], settings: StageSettings) -> dict[str, object] | None:
    """Return the last epoch and the totals of a stage; None for a skipped stage."""
    if not results:
        return None
    last = results[-1]
    return {
        "epochs": len(results),
        "epochs_saved": max(0, settings.epochs - len(results)),
        "restored_epoch": early_stopping.ending_epoch(settings, results).epoch if settings.restore else None,
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
    """Yield the lines of history.csv: one row per epoch. `epoch` counts in each stage, `epoch_total` across both.

    New columns are appended, so that readers of older ones find them by name and by position.
    """
    yield _csv_line([*EPOCH_COLUMNS, "epoch_total", "learning_rate"])
    for epoch_total, result in enumerate(history, 1):
        columns = [getattr(result, column) for column in EPOCH_COLUMNS]
        yield _csv_line([*columns, epoch_total, result.learning_rate])


def predictions_csv(manifest: Manifest, scores: dict[str, Scores]) -> Iterator[str]:
    """Yield the lines of predictions.csv: one row per held-out image, with one probability column per label."""
    yield _csv_line(["uri", "split", "label", "prediction", *(f"probability_{label}" for label in manifest.labels)])
    for scored in scores.values():
        for row, probabilities in zip(scored.rows.tolist(), scored.probabilities, strict=True):
            label, prediction = manifest.labels[manifest.label[row]], manifest.labels[int(probabilities.argmax())]
            columns = [f"{probability:.9g}" for probability in probabilities.tolist()]
            yield _csv_line([manifest.uri(row), scored.split, label, prediction, *columns])


def curves_document(answers: Answers, names: Sequence[str]) -> Document:
    """Return curves.json: the curves of each split, None for a split without images."""
    found = {name: curves.curves_document(*answer, names) for name, answer in answers.items()}
    return {"validation": found["validation"], "test": found.get("test")}


def confusion_csv(answers: Answers, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of confusion.csv: for each split and true label, the number of images by prediction."""
    yield _csv_line(["split", "label", *names])
    for name, (probabilities, labels) in answers.items():
        rows = splits.confusion_rows(labels, probabilities.argmax(axis=1), len(names))
        for label, row in zip(names, rows, strict=True):
            yield _csv_line([name, label, *row.tolist()])


def _csv_line(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
