"""Groups of images that belong together, such as those of one patient: they are never shared out over splits."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import numpy as np

from job.data.labels import join_names
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.data.manifest import Manifest


def number(name: str) -> int:
    """Return the number of a group: 64 bits of a hash of its name, never 0; 0 for an empty name, which is no group."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]
    return max(1, int.from_bytes(digest, "little")) if name else 0


def keys(manifest: Manifest, pattern: str) -> NDArray[np.uint64] | None:
    """Return the number of each image's group, uint64 [n]; None if there are no groups.

    Args:
        manifest: the images. Where a table names their groups, an image that it gives none is a group of its own (with
            its copies), and its bytes decide its split.
        pattern: regular expression, searched in each name relative to its root. The group is its first part in
            brackets, if it has one, else all that it matches. Empty: only a table may name groups.

    Raises:
        DataError: the pattern finds no group in a name.
    """
    if manifest.group is not None:
        return _of_table(manifest, manifest.group)
    return _of_names(manifest, pattern) if pattern else None


def _of_table(manifest: Manifest, named: NDArray[np.uint64]) -> NDArray[np.uint64]:
    found = np.unique(named[named != 0])
    alone = int((named == 0).sum())
    tell = log.get().info if len(found) else log.get().warning
    tell("input.groups_found", groups=len(found), images=len(named), ungrouped=alone)
    return np.where(named == 0, manifest.content_keys(), named)


def _of_names(manifest: Manifest, pattern: str) -> NDArray[np.uint64]:
    expression = re.compile(pattern)
    found = [
        match and (match[1] if expression.groups else match[0]) for match in map(expression.search, manifest.names)
    ]
    if missing := [name for name, group in zip(manifest.names, found, strict=True) if not group]:
        raise DataError(
            f"input.group_pattern = {pattern!r} finds no group in {len(missing):,} of {len(found):,} names, such as "
            f"{join_names([log.printable(name) for name in missing[:3]])}",
            remedy="write a pattern that matches every name: patient-([0-9]+) finds 17 in cats/patient-17_2.jpg",
        )
    numbers = {group: number(group) for group in {*found} if group}
    log.get().info("input.groups_found", groups=len(numbers), images=len(found))
    return np.array([numbers[group] for group in found if group], np.uint64)


def merge(group_keys: NDArray[np.uint64], picture: NDArray[np.intp]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Join groups that share a picture: its copies must not be on two sides either.

    Args:
        group_keys: uint64 [n], of each image.
        picture: intp [n], the distinct picture of each image.

    Returns:
        The key of each joined group (the smallest of its members), and the index of each image's group.
    """
    joined = group_keys.copy()
    _, group = np.unique(group_keys, return_inverse=True)
    while True:
        before = joined
        for part in (picture, group):
            smallest = np.full(int(part.max(initial=-1)) + 1, np.iinfo(np.uint64).max, np.uint64)
            np.minimum.at(smallest, part, joined)
            joined = smallest[part]
        if np.array_equal(before, joined):
            unique, index = np.unique(joined, return_inverse=True)
            return unique, index
