"""Warnings about a model: why its accuracy may say little."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.data.labels import join_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIN_IMAGES = 30
"""Validation images below which the accuracy is a guess."""


def find(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the warnings, as "code" and "text".

    Args:
        document: "validation", "majority", "kept" and "stages" of metrics.json.
    """
    return [{"code": code, "text": text} for code, text in _find(document)]


def _find(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    validation, majority = document["validation"], document["majority"]
    labels, accuracy = validation["labels"], validation["accuracy"]
    predicted = [name for name, row in labels.items() if row["precision"] is not None]
    if len(predicted) == 1:
        yield "one_answer", f"all {validation['images']:,} validation images are predicted to be {predicted[0]!r}"
    if accuracy <= majority["validation"]:
        text = f"the accuracy, {accuracy:.3f}, is not above that of always predicting {majority['label']!r}"
        yield "majority", f"{text}, {majority['validation']:.3f}"
    if missed := [name for name, row in labels.items() if row["recall"] == 0]:
        yield "recall_zero", f"no validation image of {join_names(missed)} is recognised"
    if validation["images"] < MIN_IMAGES:
        yield "few_images", f"there are {validation['images']} validation images: every metric is a rough estimate"
    kept = document["kept"]
    if document["stages"]["fine_tuning"] is not None and kept["stage"] == "feature_extraction":
        text = f"stage 2 did not improve the model: epoch {kept['epoch']} of stage 1 has the lowest validation loss"
        yield "stage_1_kept", f"{text}, {kept['val_loss']:.3f}"
