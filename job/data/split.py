"""Which images are trained on, which validated on, which tested on.

The input's own splits stand. Where it names none, an image's side follows from its bytes alone: a hash of crc32c and
size against a threshold. So adding images never moves old ones, and copies of one picture lie on one side. The
exception is a class that would be absent from a side: one of its pictures is moved there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from job.data.labels import SPLIT_NAMES as NAMES
from job.data.labels import TEST, TRAIN, VALIDATION
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.data.manifest import Manifest

__all__ = ["NAMES", "TEST", "TRAIN", "VALIDATION", "assign", "hashes", "rows"]


@dataclass(frozen=True)
class _Pictures:
    """The different pictures among the images: copies are one picture, whatever they are called.

    Attributes:
        free: bool [images], whether an image goes where its picture goes.
        of: intp [images], the picture of an image.
        hash: uint64 [pictures].
        side: uint8 [pictures].
    """

    free: NDArray[np.bool_]
    of: NDArray[np.intp]
    hash: NDArray[np.uint64]
    side: NDArray[np.uint8]


def assign(manifest: Manifest, *, validation_fraction: float, test_fraction: float) -> NDArray[np.uint8]:
    """Give every image a side.

    An image that the input puts into a split stays there, unless the input names no validation split: then one is cut
    from its train split. Images that the input names no split for go by their hash, or to the side of a named copy.

    Args:
        manifest: the usable images.
        validation_fraction: the part to validate on, where the input names no validation split.
        test_fraction: the part to test on, where the input names no split at all.

    Returns:
        uint8 [n], codes of NAMES.

    Raises:
        DataError: a class has too few different pictures for the sides that are made here.
    """
    named = manifest.split
    cut = not (named == VALIDATION).any()
    test_part = 0.0 if named.any() else test_fraction
    made = [*[TEST] * (test_part > 0), *[VALIDATION] * cut, TRAIN]

    sides = named.copy()
    different, picture = np.unique(_keys(manifest), return_inverse=True)
    stays = (named != 0) & ~((named == TRAIN) & cut)
    copied = np.zeros(len(different), np.uint8)
    np.maximum.at(copied, picture[stays], named[stays])  # the highest code: rather held out than trained on
    follows = (named == 0) & (copied[picture] != 0)
    sides[follows] = copied[picture[follows]]

    hash_of = _mix(different)
    part = (hash_of >> np.uint64(11)) * 2.0**-53  # in [0, 1), as floats are made from 64 random bits
    side = np.select([part < test_part, part < test_part + validation_fraction], [TEST, VALIDATION], TRAIN)
    pictures = _Pictures(~stays & ~follows, picture, hash_of, side.astype(np.uint8))
    _fill_sides(manifest, sides, made, pictures)
    sides[pictures.free] = pictures.side[picture[pictures.free]]
    _report_absent(manifest, sides)
    return sides


def rows(manifest: Manifest, sides: NDArray[np.uint8]) -> Iterator[dict[str, object]]:
    """Yield each image's side as plain JSON, as published in ``data/split.jsonl``."""
    for row, side in enumerate(sides.tolist()):
        yield {"uri": manifest.uri(row), "label": manifest.labels[manifest.label[row]], "split": NAMES[side]}


def hashes(manifest: Manifest) -> NDArray[np.uint64]:
    """Return each image's hash, uint64 [n]: of its checksum and size alone, evenly spread."""
    return _mix(_keys(manifest))


def _keys(manifest: Manifest) -> NDArray[np.uint64]:
    high: NDArray[np.uint64] = manifest.crc32c.astype(np.uint64) << np.uint64(32)
    return high ^ manifest.size.astype(np.uint64)


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64 bits to 64 bits, one to one: the finalizer of SplitMix64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014, https://doi.org/10.1145/2660193.2660195,
    with the constants of https://prng.di.unimi.it/splitmix64.c
    """
    mixed: NDArray[np.uint64] = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _fill_sides(manifest: Manifest, sides: NDArray[np.uint8], made: list[int], pictures: _Pictures) -> None:
    """Move pictures, so that every class is on every side that is made here.

    Args:
        manifest: the images.
        sides: uint8 [images], of those that do not go where their picture goes.
        made: the sides that are made here.
        pictures: the others; their sides are changed.
    """
    free, side = pictures.free, pictures.side
    # Every class with every picture of it, once. A picture may be of two classes: it counts, and moves, for both.
    pairs = np.unique(manifest.label[free].astype(np.int64) * max(len(side), 1) + pictures.of[free])
    label_of, picture_of = np.divmod(pairs, max(len(side), 1))
    counts = np.zeros((len(manifest.labels), max(NAMES) + 1), np.int64)
    np.add.at(counts, (label_of, side[picture_of]), 1)
    np.add.at(counts, (manifest.label[~free], sides[~free]), 1)

    def may_leave(picture: np.intp) -> bool:
        """Whether no class would be absent then from where the picture lies."""
        classes = label_of[picture_of == picture]
        return side[picture] not in made or bool((counts[classes, side[picture]] > 1).all())

    for to in made:
        for label in np.flatnonzero(counts[:, to] == 0):
            own = picture_of[label_of == label]
            # Nearest to the other side first: the lowest hash into test and validation, the highest into train.
            own = own[np.argsort(pictures.hash[own])][:: -1 if to == TRAIN else 1]
            chosen = next(filter(may_leave, own), None)
            if chosen is None:
                raise _too_few(manifest, int(label), len(own), made)
            classes = label_of[picture_of == chosen]
            counts[classes, side[chosen]] -= 1
            counts[classes, to] += 1
            side[chosen] = to
            row = int(np.flatnonzero(free & (pictures.of == chosen))[0])
            log.get().warning("split.image_moved", uri=manifest.uri(row), label=manifest.labels[label], split=NAMES[to])


def _too_few(manifest: Manifest, label: int, pictures: int, made: list[int]) -> DataError:
    files = int((manifest.label == label).sum())
    sides = ", ".join(NAMES[side] for side in reversed(made))
    return DataError(
        f"the class {manifest.labels[label]!r} has {pictures} different pictures to share out ({files} files): "
        f"at least {len(made)} are needed, one for each of {sides}"
        + (", and none that is also a picture of another class" if pictures >= len(made) else ""),
        remedy="add images of this class, or remove it",
    )


def _report_absent(manifest: Manifest, sides: NDArray[np.uint8]) -> None:
    """Warn of classes that the input's own splits leave out of a side."""
    for side in (VALIDATION, TEST):
        counts = np.bincount(manifest.label[sides == side], minlength=len(manifest.labels))
        absent = [label for label, count in zip(manifest.labels, counts, strict=True) if not count]
        if counts.any() and absent:
            log.get().warning("split.class_absent", split=NAMES[side], classes=absent)
