"""The data after the pass: checked, split and described for the run's documents."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from job.data import duplicates, groups, split
from job.data import manifest as manifests
from job.data.labels import SPLIT_NAMES, TRAIN
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from job.config.settings import InputSettings
    from job.data.duplicates import Duplicates
    from job.data.manifest import Manifest
    from job.data.quarantine import Quarantined
    from job.observability import log
    from job.observability.progress import Progress

LOGGED_NAMES = 5
DAMAGED = "they are used, since input.damaged is warn: look at them"

Array = np.ndarray[Any, Any]

QUARANTINE = "data/quarantine.jsonl"
"""Name of the file that lists the unusable images, in the run."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The data that the run trains on.

    Attributes:
        usable: the usable images.
        splits: uint8 [usable], split codes.
        rows_of: name of a split -> its rows among all listed images, int [n].
        quarantined: the images that cannot be used.
        duplicates: what of the usable images is there more than once.
        group_keys: uint64 [usable], the number of each image's group; None if there are no groups.
        seen: name of a split -> its images that the model of a warm start has trained on; empty without one.
    """

    usable: Manifest
    splits: Array
    rows_of: dict[str, Array]
    quarantined: list[Quarantined]
    duplicates: Duplicates
    group_keys: NDArray[np.uint64] | None = None
    seen: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def documents(self) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
        """Yield the name and the rows of each JSON Lines file that describes the data."""
        yield "data/manifest.jsonl", self.usable.rows()
        yield "data/split.jsonl", split.rows(self.usable, self.splits)
        yield "data/duplicates.jsonl", self.duplicates.rows(self.usable, self.splits)
        yield QUARANTINE, map(dataclasses.asdict, self.quarantined)


class Passed(Protocol):
    """What is known after all images were read: the data set after its pass, or the survey of their headers.

    Attributes:
        usable: bool [n], which of the listed images can be used.
        quarantined: the others.
        damaged: bool [n], those that can be used, but that libjpeg warns about; none before they are decoded.
    """

    usable: NDArray[np.bool_]
    quarantined: list[Quarantined]
    damaged: NDArray[np.bool_]


def prepare(
    listed: Manifest,
    quarantined: list[Quarantined],
    images: Passed,
    settings: InputSettings,
    progress: Progress,
    *,
    hashes: NDArray[np.uint64] | None,
) -> Prepared:
    """Check and split the images that the pass found usable, and report the number of images by class and split.

    Args:
        listed: every listed image.
        quarantined: images found unusable while listing.
        images: what the pass found.
        settings: the fractions of the splits, and how many images may be unusable or leak.
        progress: receives the events.
        hashes: uint64 [n], of what all listed images show; None if they were not decoded.

    Raises:
        errors.DataError: too many images are unusable or are on both sides of the split, or a split is too small.
    """
    rows = np.flatnonzero(images.usable)
    usable, quarantined = listed.take(rows), quarantined + images.quarantined
    manifests.check_usable(usable, quarantined, settings.max_bad_fraction)
    if quarantined:
        progress.event("images.quarantined", severity="warning", count=len(quarantined), of=len(listed))
    if len(damaged := np.flatnonzero(images.damaged)):
        names = [listed.uri(row) for row in damaged[:LOGGED_NAMES].tolist()]
        progress.event(
            "images.damaged", severity="warning", count=len(damaged), of=len(listed), first=names, note=DAMAGED
        )
    group_keys = groups.keys(usable, settings.group_pattern)
    splits = split.assign(
        usable,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        group_keys=group_keys,
    )
    progress.event("split.assigned", **_class_counts(usable.labels, split.counts(usable, splits)))
    found = duplicates.find(usable, splits, None if hashes is None else hashes[rows], settings.near_duplicate_distance)
    _report(found, usable, splits, settings.max_leaking_duplicates, progress)
    rows_of = {name: rows[splits == code] for code, name in SPLIT_NAMES.items()}
    return Prepared(
        usable=usable,
        splits=splits,
        rows_of=rows_of,
        quarantined=quarantined,
        duplicates=found,
        group_keys=group_keys,
    )


def _report(found: Duplicates, usable: Manifest, splits: Array, max_leaking: int | None, progress: Progress) -> None:
    """Report duplicates; refuse them where more than the settings allow are on both sides of the split."""
    counts = found.counts()
    leaking = counts["leaking"]
    if len(found.exact) or len(found.near):
        severity: log.Level = "warning" if leaking or len(found.twofold) else "info"
        progress.event("duplicates.found", severity=severity, **counts)
    if max_leaking is not None and leaking > max_leaking:
        examples = [usable.uri(row) for row in np.concatenate([found.leaking_copies, found.leaking_near])[:3].tolist()]
        raise DataError(
            f"{leaking:,} of {int((splits != TRAIN).sum()):,} held-out images show the same, or nearly the same, as "
            f"one of the train split, and input.max_leaking_duplicates allows {max_leaking:,}. The first:\n  "
            + "\n  ".join(examples),
            remedy="remove them, keep what belongs together on one side (input.group_column, input.group_pattern), or "
            "raise input.max_leaking_duplicates; finetune validate --deep lists them",
        )


def _class_counts(labels: Sequence[str], counts: Array) -> dict[str, Any]:
    """Return the facts of the event about the split: the images of classes as [train, validation, test].

    Args:
        labels: the classes.
        counts: int [labels, 3], their images by split.
    """
    rows = dict(zip(labels, counts.tolist(), strict=True))
    of_split = dict(zip(SPLIT_NAMES.values(), counts.sum(0).tolist(), strict=True))
    smallest, largest = (labels[int(choose(counts.sum(1)))] for choose in (np.argmin, np.argmax))
    return of_split | {
        "classes": dict(itertools.islice(rows.items(), split.LOGGED_CLASSES)),
        "smallest": {smallest: rows[smallest]},
        "largest": {largest: rows[largest]},
        "more_classes": max(0, len(labels) - split.LOGGED_CLASSES),
    }
