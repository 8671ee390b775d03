"""Judges surveyed data: what would mislead a training, or make its result worth less than its accuracy says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from job.data.labels import SPLIT_NAMES, TRAIN, VALIDATION, join_names
from job.data.survey import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.prepare import Prepared
    from job.data.survey import Survey

SMALL_CLASS: Final = 10
IMBALANCE: Final = 100
ENLARGED: Final = 2.0
"""An image that is enlarged more than this is blurred: most of the model's pixels are interpolated, and the pretrained
filters for details find none."""

HUGE_PIXELS: Final = 24_000_000
LONG_SIDE: Final = 3.0

_CONSTANT, _ELSEWHERE, _OF_CLASS = 0.95, 0.05, 10
"""A trait gives a class away if 95 % of its images have it and at most 5 % of the others; from 10 images on."""


@dataclass(frozen=True)
class Finding:
    """Something that a person should look at before the training.

    Attributes:
        code: its kind, stable for programs.
        message: what was found, with numbers.
        remedy: what to do.
    """

    code: str
    message: str
    remedy: str


def find(survey: Survey, prepared: Prepared, *, validation_fraction: float, image_size: int) -> list[Finding]:
    """Return what may mislead, the gravest first.

    Args:
        survey: the headers of all listed images.
        prepared: the usable images and their splits.
        validation_fraction: the share that was asked for.
        image_size: side of the square to which every image is resized, pixels.
    """
    return [
        *_leaks(survey, prepared),
        *_copies(prepared),
        *_near_duplicates(prepared),
        *_groups(prepared),
        *_damaged(survey),
        *_balance(prepared),
        *_shares(prepared, validation_fraction),
        *_sizes(survey, image_size),
    ]


def _leaks(survey: Survey, prepared: Prepared) -> Iterator[Finding]:
    """Find classes that differ from all others by how their files were made: a model learns that instead."""
    usable, labels = survey.usable, prepared.usable.labels
    label = prepared.usable.label
    shapes = survey.width[usable].astype(np.int64) << 32 | survey.height[usable]
    traits: dict[str, tuple[NDArray[Any], Any]] = {
        "format": (survey.format[usable], lambda value: FORMATS[value].upper()),
        "size": (shapes, lambda value: f"{value >> 32} x {value & 0xFFFFFFFF} pixels"),
        "EXIF orientation": (survey.orientation[usable], str),
    }
    for trait, (values, name) in traits.items():
        given_away = []
        for number in range(len(labels)):
            inside = values[label == number]
            if len(inside) < _OF_CLASS:
                continue
            found, counts = np.unique(inside, return_counts=True)
            value = found[counts.argmax()]
            elsewhere = values[label != number]
            if counts.max() >= _CONSTANT * len(inside) and (elsewhere == value).mean() <= _ELSEWHERE:
                given_away.append(f"{labels[number]!r} ({name(int(value))})")
        if given_away:
            yield Finding(
                "leak",
                f"the {trait} of an image tells its class: {', '.join(given_away[:5])}",
                "a model may learn how the files were made, and not what they show: take all classes from the same "
                "source, or convert all images to one format and size",
            )


def _copies(prepared: Prepared) -> Iterator[Finding]:
    """Find images that are in several splits: what is measured on them was trained on."""
    leaking, copies = prepared.duplicates.leaking_copies, len(prepared.duplicates.exact)
    if len(leaking):
        yield Finding(
            "copies_across_splits",
            f"{len(leaking):,} held-out pictures are in the train split as well: {_uris(prepared, leaking)}",
            "remove the copies: a model is measured on pictures that it was trained on",
        )
    if copies > 0.05 * len(prepared.usable):
        yield Finding(
            "copies",
            f"{copies:,} of {len(prepared.usable):,} images are copies of others, byte by byte",
            "remove them: they cost time and count several times",
        )


def _near_duplicates(prepared: Prepared) -> Iterator[Finding]:
    """Find pictures that show nearly the same on both sides of the split, or under two labels."""
    leaking, twofold = prepared.duplicates.leaking_near, prepared.duplicates.twofold
    if len(leaking):
        yield Finding(
            "near_duplicates_across_splits",
            f"{len(leaking):,} of {int((prepared.splits != TRAIN).sum()):,} held-out pictures show nearly the same as "
            f"one of the train split: {_uris(prepared, leaking)}",
            "remove them, or keep what belongs together on one side (input.group_pattern, input.group_column): the "
            "accuracy is too high",
        )
    if len(twofold):
        yield Finding(
            "near_duplicates_across_labels",
            f"{len(twofold):,} pictures show nearly the same as a picture of another class: {_uris(prepared, twofold)}",
            "look at them: one of the labels is probably wrong",
        )


def spread(group: NDArray[Any], values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the groups whose images have more than one value.

    Args:
        group: int [n], the index of each image's group.
        values: int [n], of each image.
    """
    pairs = np.unique(np.stack([group.astype(np.int64), values.astype(np.int64)]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0]) > 1)


def _groups(prepared: Prepared) -> Iterator[Finding]:
    """Find groups that the input itself, whose splits are kept, puts into several splits."""
    if prepared.group_keys is None:
        return
    _, group = np.unique(prepared.group_keys, return_inverse=True)
    across = spread(group, prepared.splits)
    if len(across):
        examples = np.array([np.flatnonzero(group == number)[0] for number in across[:3]])
        yield Finding(
            "groups_across_splits",
            f"{len(across):,} of {int(group.max()) + 1:,} groups are in several of the splits that the input names: "
            f"{_uris(prepared, examples)}" + (", …" if len(across) > len(examples) else ""),
            "put each group into one split: a model is measured on what it was trained on",
        )


def _damaged(survey: Survey) -> Iterator[Finding]:
    rows = np.flatnonzero(survey.damaged).tolist()
    if rows:
        names = ", ".join(f"{survey.manifest.uri(row)} ({survey.warnings[row]})" for row in rows[:3])
        yield Finding(
            "damaged",
            f"{len(rows):,} images can be decoded, but are damaged: {names}" + (", …" if len(rows) > 3 else ""),
            "look at them, and replace them; or set input.damaged to quarantine, which leaves them out",
        )


def _uris(prepared: Prepared, rows: NDArray[Any]) -> str:
    return ", ".join(prepared.usable.uri(row) for row in rows[:3].tolist()) + (", …" if len(rows) > 3 else "")


def _balance(prepared: Prepared) -> Iterator[Finding]:
    manifest = prepared.usable
    counts = np.bincount(manifest.label, minlength=len(manifest.labels))
    small = [manifest.labels[number] for number in np.flatnonzero(counts < SMALL_CLASS).tolist()]
    if small:
        yield Finding(
            "small_classes",
            f"fewer than {SMALL_CLASS} images: {join_names(small)}",
            "add images: what is measured on one or two of them says little",
        )
    if counts.max() > IMBALANCE * counts.min():
        smallest, largest = int(counts.argmin()), int(counts.argmax())
        yield Finding(
            "imbalance",
            f"{manifest.labels[largest]!r} has {counts[largest]:,} images, {manifest.labels[smallest]!r} "
            f"{counts[smallest]:,}: accuracy says nothing of the rare class",
            "add images of the rare class, or take fewer of the others",
        )


def _shares(prepared: Prepared, requested: float) -> Iterator[Finding]:
    manifest, splits = prepared.usable, prepared.splits
    totals = np.bincount(manifest.label, minlength=len(manifest.labels))
    held_out = np.bincount(manifest.label[splits == VALIDATION], minlength=len(manifest.labels))
    if held_out.sum() < 30:
        yield Finding(
            "few_to_validate_on",
            f"{held_out.sum()} images to validate on",
            "add images: with fewer than 30, the accuracy is a guess",
        )
    shares = held_out / np.maximum(totals, 1)
    off = np.flatnonzero((shares < requested / 2) | (shares > requested * 2)).tolist()
    if off:
        examples = ", ".join(f"{manifest.labels[row]!r} {held_out[row]} of {totals[row]}" for row in off[:5])
        yield Finding(
            "validation_share",
            f"{len(off)} classes have under half or over twice {requested:g} of their images held out: {examples}",
            "a chance of small classes; or balance the splits that the input names",
        )
    for code in set(SPLIT_NAMES) - {TRAIN}:
        numbers = np.bincount(manifest.label[splits == code], minlength=len(manifest.labels))
        absent = [manifest.labels[row] for row in np.flatnonzero(numbers == 0).tolist()]
        if numbers.any() and absent:
            yield Finding(
                "class_absent",
                f"no image of {join_names(absent)} in the {SPLIT_NAMES[code]} split",
                "nothing is measured of these classes there: add images of them",
            )


def _sizes(survey: Survey, image_size: int) -> Iterator[Finding]:
    width, height = survey.width[survey.usable], survey.height[survey.usable]
    short, long = np.minimum(width, height), np.maximum(width, height)
    for code, found, share, what, remedy in (
        (
            "tiny",
            short * ENLARGED < image_size,
            0.01,
            f"a side under {image_size / ENLARGED:g} pixels: to {image_size} they are enlarged over {ENLARGED:g} times",
            "they may be thumbnails: look at them; if all are so small, lower model.image_size",
        ),
        (
            "huge",
            width.astype(np.int64) * height > HUGE_PIXELS,
            0.01,
            f"more than {HUGE_PIXELS / 1e6:g} megapixels",
            "shrink them once: they are decoded from full size",
        ),
        (
            "long",
            long > LONG_SIDE * np.maximum(short, 1),
            0.05,
            f"a side over {LONG_SIDE:g} times the other",
            "every image is squeezed into a square: cut them to what matters",
        ),
    ):
        if found.mean() > share:
            yield Finding(code, f"{int(found.sum()):,} of {len(found):,} images have {what}", remedy)
