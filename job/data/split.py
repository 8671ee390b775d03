"""Assigns every image to train, validation or test.

The input's own splits are kept. Where it names none, an image's split depends on its bytes alone: a hash of crc32c and
size is compared with a threshold. So copies of a picture share a split, and adding images does not move existing ones.
Where images belong together (a patient, a video), the name of their group takes the place of their bytes.

The exception is a class that would be absent from a split: one of its pictures is moved there, and returns once an
added picture of the class belongs there by its hash, or is nearer to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from job.data import groups
from job.data.labels import SPLIT_NAMES as NAMES
from job.data.labels import TEST, TRAIN, VALIDATION
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.manifest import Manifest

__all__ = [
    "LOGGED_CLASSES",
    "NAMES",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "assign",
    "counts",
    "group_hashes",
    "hashes",
    "rows",
]


LOGGED_CLASSES = 20
"""Number of classes that an event names; there may be thousands."""


@dataclass(frozen=True)
class _Pictures:
    """The distinct pictures among the images: copies under different names are one picture.

    Attributes:
        is_free: bool [images], whether an image takes the split of its picture.
        index: intp [images], the picture of each image.
        hash: uint64 [pictures].
        split: uint8 [pictures].
        what: what they are called in messages: pictures, or groups of them.
    """

    is_free: NDArray[np.bool_]
    index: NDArray[np.intp]
    hash: NDArray[np.uint64]
    split: NDArray[np.uint8]
    what: str


def assign(
    manifest: Manifest,
    *,
    validation_fraction: float,
    test_fraction: float,
    group_keys: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint8]:
    """Assign every image to train, validation or test.

    An image stays in the split that the input names, unless the input names no validation split: then one is taken
    from its train split. Images without a named split follow a copy that has one, or else their hash.

    Args:
        manifest: the usable images.
        validation_fraction: the fraction to validate on, if the input names no validation split.
        test_fraction: the fraction to test on, if the input names no split at all.
        group_keys: uint64 [n], the number of each image's group, as of `groups.keys`; None: there are no groups.

    Returns:
        uint8 [n], codes of NAMES.

    Raises:
        DataError: a class has too few distinct pictures or groups for the splits assigned here.
    """
    named = manifest.split
    needs_validation = not (named == VALIDATION).any()
    test_share = 0.0 if named.any() else test_fraction
    assigned = [*[TEST] * (test_share > 0), *[VALIDATION] * needs_validation, TRAIN]

    splits = named.copy()
    keys, picture = _pictures(manifest, group_keys)
    is_fixed = (named != 0) & ~((named == TRAIN) & needs_validation)
    fixed_split = np.zeros(len(keys), np.uint8)
    np.maximum.at(fixed_split, picture[is_fixed], named[is_fixed])  # the highest code: held out rather than trained on
    follows_copy = (named == 0) & (fixed_split[picture] != 0)
    splits[follows_copy] = fixed_split[picture[follows_copy]]

    picture_hashes = _mix(keys)
    uniform = (picture_hashes >> np.uint64(11)) * 2.0**-53  # in [0, 1), the usual float from 64 random bits
    by_hash = np.full(len(uniform), TRAIN, np.uint8)
    by_hash[uniform < test_share + validation_fraction] = VALIDATION
    by_hash[uniform < test_share] = TEST
    del uniform
    what = "groups of images" if group_keys is not None else "different pictures"
    pictures = _Pictures(~is_fixed & ~follows_copy, picture, picture_hashes, by_hash, what)
    _fill_splits(manifest, splits, assigned, pictures)
    splits[pictures.is_free] = pictures.split[picture[pictures.is_free]]
    _report_absent(manifest, splits)
    if needs_validation:
        _report_shares(manifest, pictures.is_free, splits, validation_fraction)
    return splits


def rows(manifest: Manifest, splits: NDArray[np.uint8]) -> Iterator[dict[str, object]]:
    """Yield each image's split as plain JSON, as published in ``data/split.jsonl``."""
    for row, code in enumerate(splits.tolist()):
        yield {"uri": manifest.uri(row), "label": manifest.labels[manifest.label[row]], "split": NAMES[code]}


def counts(manifest: Manifest, splits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of images by label and split, int64 [labels, 3], in the order of NAMES."""
    numbers = np.zeros((len(manifest.labels), len(NAMES)), np.int64)
    np.add.at(numbers, (manifest.label, splits - TRAIN), 1)
    return numbers


def hashes(manifest: Manifest) -> NDArray[np.uint64]:
    """Return a hash of each image's checksum and size, uint64 [n], uniformly distributed."""
    return _mix(manifest.content_keys())


def group_hashes(manifest: Manifest, group_keys: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
    """Return a hash, uint64 [n], uniformly distributed, that copies and the images of a group have in common.

    Args:
        manifest: the images.
        group_keys: of the images' groups, uint64 [n]; None: no groups.
    """
    keys, picture = _pictures(manifest, group_keys)
    return _mix(keys)[picture]


def _pictures(manifest: Manifest, group_keys: NDArray[np.uint64] | None) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return the keys of the distinct pictures, or groups of them, uint64 [k], and the one of each image, [n]."""
    keys, picture = np.unique(manifest.content_keys(), return_inverse=True)
    return (keys, picture) if group_keys is None else groups.merge(group_keys, picture)


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64 bits to 64 bits, one to one: the finalizer of SplitMix64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014, https://doi.org/10.1145/2660193.2660195,
    with the constants of https://prng.di.unimi.it/splitmix64.c
    """
    mixed: NDArray[np.uint64] = keys + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # in place: there may be a million
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _fill_splits(manifest: Manifest, splits: NDArray[np.uint8], assigned: list[int], pictures: _Pictures) -> None:
    """Move pictures so that every assigned split contains every class.

    Args:
        manifest: the images.
        splits: uint8 [images], valid for images that are not free.
        assigned: the splits assigned here.
        pictures: of the free images; their splits are changed.
    """
    is_free, split = pictures.is_free, pictures.split
    # The distinct (class, picture) pairs. A picture may belong to two classes: it counts, and moves, for both.
    pairs = np.unique(manifest.label[is_free].astype(np.int64) * max(len(split), 1) + pictures.index[is_free])
    label_of, picture_of = np.divmod(pairs, max(len(split), 1))
    counts = np.zeros((len(manifest.labels), max(NAMES) + 1), np.int64)
    np.add.at(counts, (label_of, split[picture_of]), 1)
    np.add.at(counts, (manifest.label[~is_free], splits[~is_free]), 1)

    def can_move(picture: np.intp) -> bool:
        """Whether each of the picture's classes remains in its split without it."""
        classes = label_of[picture_of == picture]
        return split[picture] not in assigned or bool((counts[classes, split[picture]] > 1).all())

    for target in assigned:
        for label in np.flatnonzero(counts[:, target] == 0):
            candidates = picture_of[label_of == label]
            # Nearest to the target first: the lowest hash into test and validation, the highest into train.
            candidates = candidates[np.argsort(pictures.hash[candidates])][:: -1 if target == TRAIN else 1]
            chosen = next(filter(can_move, candidates), None)
            if chosen is None:
                raise _too_few(manifest, int(label), len(candidates), pictures.what, assigned)
            classes = label_of[picture_of == chosen]
            counts[classes, split[chosen]] -= 1
            counts[classes, target] += 1
            split[chosen] = target
            row = int(np.flatnonzero(is_free & (pictures.index == chosen))[0])
            log.get().warning(
                "split.image_moved", uri=manifest.uri(row), label=manifest.labels[label], split=NAMES[target]
            )


def _too_few(manifest: Manifest, label: int, pictures: int, what: str, assigned: list[int]) -> DataError:
    files = int((manifest.label == label).sum())
    splits = ", ".join(NAMES[code] for code in reversed(assigned))
    return DataError(
        f"the class {manifest.labels[label]!r} has {pictures} {what} to share out ({files} files): "
        f"at least {len(assigned)} are needed, one for each of {splits}"
        + (", and none that is also a picture of another class" if pictures >= len(assigned) else ""),
        remedy="add images of this class, or remove it",
    )


def _report_absent(manifest: Manifest, splits: NDArray[np.uint8]) -> None:
    """Warn of classes that are absent from a split that the input itself names."""
    for code in (VALIDATION, TEST):
        numbers = np.bincount(manifest.label[splits == code], minlength=len(manifest.labels))
        absent = [label for label, number in zip(manifest.labels, numbers, strict=True) if not number]
        if numbers.any() and absent:
            shown = absent[:LOGGED_CLASSES]
            log.get().warning("split.class_absent", split=NAMES[code], count=len(absent), classes=shown)


def _report_shares(manifest: Manifest, is_free: NDArray[np.bool_], splits: NDArray[np.uint8], requested: float) -> None:
    """Warn of classes whose share of validation images is under half or over twice the requested one.

    Args:
        manifest: the images.
        is_free: bool [images], whether an image was assigned by its hash.
        splits: uint8 [images].
        requested: the share.
    """
    totals = np.bincount(manifest.label[is_free], minlength=len(manifest.labels))
    held_out = np.bincount(manifest.label[is_free & (splits == VALIDATION)], minlength=len(manifest.labels))
    shares = held_out / np.maximum(totals, 1)
    off = np.flatnonzero((totals > 0) & ((shares < requested / 2) | (shares > requested * 2)))
    if len(off):
        examples = {manifest.labels[label]: f"{held_out[label]} of {totals[label]}" for label in off[:10].tolist()}
        log.get().warning("split.share_deviates", requested=requested, classes=len(off), validation=examples)
