"""Scores a labelled set with a published model: the part of ``finetune evaluate`` that needs the heavy libraries."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from job.data import image_files
from job.data import manifest as manifests
from job.data.quarantine import Quarantined
from job.errors import DataError
from job.evaluation.labelled_set import LabelledSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from job.config.settings import Settings
    from job.data.manifest import Manifest
    from job.export.predictor import Predictor
    from job.observability.progress import Progress
    from job.storage import OpenStore, Store


def score(
    model: Predictor, images: Manifest, settings: Settings, open_store: OpenStore, progress: Progress
) -> tuple[LabelledSet, list[Quarantined]]:
    """Score all images.

    Returns:
        The usable ones, maybe none, with their probabilities; and the others.
    """
    probabilities, usable = np.zeros((len(images), len(model.labels)), np.float32), np.zeros(len(images), bool)
    quarantined, row = [], 0
    with progress.phase("evaluate", len(images), "images") as phase:
        batches = image_files.read(_listed(images, open_store), max_pixels=settings.input.max_pixels)
        for answers in model.predict(batches):
            for answer in answers:
                if answer.probabilities is not None:
                    probabilities[row], usable[row] = answer.probabilities, True
                elif answer.reason is not None:
                    label, size = images.labels[images.label[row]], int(images.size[row])
                    quarantined.append(Quarantined(answer.uri, label, size, answer.reason, answer.detail))
                row += 1
            phase.advance(len(answers))
    kept = images.take(np.flatnonzero(usable))
    return LabelledSet(images=kept, probabilities=probabilities[usable]), quarantined


def check_quarantine(
    output: Store, kept: Manifest, quarantined: list[Quarantined], settings: Settings, progress: Progress
) -> None:
    """Write the list of the images that cannot be used, and check that they are few.

    Raises:
        DataError: they are more than `input.max_bad_fraction` allows, or all.
    """
    ordered = sorted(quarantined, key=lambda image: image.uri)
    rows = (json.dumps(dataclasses.asdict(image), ensure_ascii=False) + "\n" for image in ordered)
    write_lines(output, "quarantine.jsonl", rows)
    listed = f"{output.uri_of('quarantine.jsonl')} has each with its reason"
    try:
        manifests.check_budget(kept, quarantined, settings.input.max_bad_fraction)
    except DataError as error:
        raise DataError(error.message, remedy=f"{error.remedy}; {listed}") from error
    if quarantined:
        progress.event(
            "images.quarantined", severity="warning", count=len(quarantined), of=len(kept) + len(quarantined)
        )
    if not len(kept):
        raise DataError(f"no image of {settings.input.uri} can be used", remedy=listed)


def _listed(images: Manifest, open_store: OpenStore) -> Iterator[image_files.Listed]:
    """Yield the images as they were listed; neighbours of one store are read together."""
    stores = [open_store(root) for root in images.roots]
    for row in range(len(images)):
        yield image_files.Listed(images.uri(row), stores[images.root[row]], images.object(row))


def write_lines(output: Store, name: str, lines: Iterable[str]) -> None:
    """Write a text file line by line, without holding it in memory."""
    with tempfile.TemporaryDirectory(prefix="finetune-result-") as folder:
        path = Path(folder) / "lines"
        with path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        output.write(name, path)
