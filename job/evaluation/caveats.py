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
        document: "validation", "majority", "kept", "stages" and "data" of metrics.json.
    """
    found = [*_of_split(document, "validation"), *_of_stages(document), *_of_warm_start(document)]
    return [{"code": code, "text": text} for code, text in found]


def find_in(document: Mapping[str, Any], split: str) -> list[dict[str, str]]:
    """Return the warnings about one split alone.

    Args:
        document: the split and "majority" of metrics.json.
        split: its name.
    """
    return [{"code": code, "text": text} for code, text in _of_split(document, split)]


def _of_split(document: Mapping[str, Any], split: str) -> Iterator[tuple[str, str]]:
    found, majority = document[split], document["majority"]
    labels, accuracy = found["labels"], found["accuracy"]
    predicted = [name for name, row in labels.items() if row["precision"] is not None]
    if len(predicted) == 1:
        yield "one_answer", f"all {found['images']:,} {split} images are predicted to be {predicted[0]!r}"
    if accuracy <= majority[split]:
        text = f"the accuracy, {accuracy:.3f}, is not above that of always predicting {majority['label']!r}"
        yield "majority", f"{text}, {majority[split]:.3f}"
    if missed := [name for name, row in labels.items() if row["recall"] == 0]:
        yield "recall_zero", f"no {split} image of {join_names(missed)} is recognised"
    if found["images"] < MIN_IMAGES:
        yield "few_images", f"there are {found['images']} {split} images: every metric is a rough estimate"


def _of_stages(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kept = document["kept"]
    if document["stages"]["fine_tuning"] is not None and kept["stage"] == "feature_extraction":
        text = f"stage 2 did not improve the model: epoch {kept['epoch']} of stage 1 has the lowest validation loss"
        yield "stage_1_kept", f"{text}, {kept['val_loss']:.3f}"


def _of_warm_start(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for split, count in document["data"]["seen"].items():
        if count:
            text = f"the model that training started from has trained on {count:,} of the {split} images"
            yield f"seen_{split}", f"{text}: the accuracy on new images is lower"
