"""Surveys made up in memory, for what judges them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from job.data import duplicates
from job.data.manifest import Manifest
from job.data.prepare import Prepared
from job.data.survey import Survey

if TYPE_CHECKING:
    from collections.abc import Sequence


def survey(
    label: Sequence[int], *, content: Sequence[int] | None = None, labels: tuple[str, ...] = ("cats", "dogs")
) -> Survey:
    """Return a survey of JPEG images of different sizes, by their labels.

    Args:
        label: of each image.
        content: equal numbers are copies; all differ by default.
        labels: the names of the classes.
    """
    count = len(label)
    manifest = Manifest(
        roots=("gs://box/d",),
        labels=labels,
        names=[f"{number}.jpg" for number in range(count)],
        root=np.zeros(count, np.uint16),
        label=np.array(label, np.int32),
        split=np.zeros(count, np.uint8),
        size=np.full(count, 1000, np.int64),
        crc32c=np.array(range(count) if content is None else content, np.uint32),
        generation=np.ones(count, np.int64),
        gzip=np.zeros(count, np.bool_),
    )
    found = Survey(manifest)
    found.usable[:] = True
    found.width[:], found.height[:] = 300 + np.arange(count) % 97, 200
    return found


def prepared(found: Survey, splits: Sequence[int], groups: Sequence[int] | None = None) -> Prepared:
    """Return its images with these splits and groups."""
    codes = np.array(splits, np.uint8)
    found_twice = duplicates.find(found.manifest, codes, found.hashes, 6)
    return Prepared(
        usable=found.manifest,
        splits=codes,
        rows_of={},
        quarantined=[],
        duplicates=found_twice,
        group_keys=None if groups is None else np.array(groups, np.uint64),
    )
