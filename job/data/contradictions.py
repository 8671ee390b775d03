"""Finds the same bytes under two labels, by size and checksum: known from the listing, before any download."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from job.data.labels import join_names
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.data.manifest import Manifest

MAX_IMAGES, MAX_FRACTION = 10, 0.01
"""More images than either under two labels are a mistake in the folders or the table, and no accident."""


def find(manifest: Manifest) -> NDArray[np.intp]:
    """Return the rows of images whose bytes are also under another label, int [k], those with equal bytes together."""
    keys = manifest.content_keys()
    order = np.lexsort((manifest.label, keys))
    same = keys[order][1:] == keys[order][:-1]
    differs = same & (manifest.label[order][1:] != manifest.label[order][:-1])
    group = np.concatenate(([0], np.cumsum(~same))) if len(keys) else np.zeros(0, np.intp)
    contradictory = np.isin(group, group[1:][differs]) if len(keys) else np.zeros(0, np.bool_)
    return order[contradictory]


def check(manifest: Manifest, *, settled: bool) -> None:
    """Refuse data with more than a few images under two labels; warn of few.

    Args:
        manifest: every listed image.
        settled: the user has said what the folders are: warn of any number.

    Raises:
        DataError: more than 10, or more than 1 % of all images.
    """
    rows = find(manifest)
    if not len(rows):
        return
    labels = sorted({manifest.labels[label] for label in manifest.label[rows[:1000]].tolist()})
    examples = [f"{manifest.uri(row)} is {manifest.labels[manifest.label[row]]!r}" for row in rows[:4].tolist()]
    if settled or (len(rows) <= MAX_IMAGES and len(rows) <= MAX_FRACTION * len(manifest)):
        log.get().warning("input.labels_contradict", images=len(rows), labels=labels[:5], examples=examples)
        return
    raise DataError(
        f"{len(rows):,} of {len(manifest):,} images have the same bytes as an image of another class "
        f"({join_names(labels)}). The first:\n  " + "\n  ".join(examples),
        remedy="remove the wrong copies, or leave a folder out with input.exclude; if the labels are right all the "
        "same, say so: input.layout=classes (or splits)",
    )
