"""Finds folders whose files belong to those of a sibling: masks, annotations drawn as images, thumbnails."""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

from job.data.labels import join_names
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.data.tree import Folder

_SAMPLE = 100_000
"""Names that are compared, at most about: a sample by hash keeps the same names in all folders."""

_SHARED_BY = 8
"""Names in more sibling folders than these are numbers that each folder starts with 1 again, and prove nothing."""

_ALIKE = 0.9
"""Share of the smaller folder's names that the other one has, too."""

_COMPANION = re.compile(
    r"(?:.*[\W_])?(?:masks?|labels?|annot(?:ation)?s?|seg(?:mentation)?s?|gt|ground_?truths?|trimaps?|contours?|bbox(?:es)?"
    r"|depths?|edges?|heat_?maps?|overlays?|saliency|thumb(?:nail)?s?|previews?)(?:[\W_].*)?",
    re.IGNORECASE,
)
"""Names of folders whose images describe other images."""


def check(names: Sequence[str], root: Folder, where: str) -> None:
    """Refuse sibling folders that hold files of the same names.

    Classes do so, too, where each numbers its files from 1. So the names must say more than a number, or the folder.

    Args:
        names: of the images, relative to the input.
        root: the folders.
        where: the input's URI, for messages.

    Raises:
        DataError: two folders hold the same names, but for their endings.
    """
    every = max(1, len(names) // _SAMPLE)
    stems: defaultdict[str, set[str]] = defaultdict(set)  # folder, with its slash -> names in it, without endings
    for name in names:
        folder, slash, file = name.rpartition("/")
        stem = file.partition(".")[0]
        if slash and zlib.crc32(stem.encode("utf-8", "surrogateescape")) % every == 0:
            stems[f"{folder}/"].add(stem)
    for above, parent in [("", root), *root.walk()]:
        siblings = [name for name in parent.folders if len(stems.get(f"{above}{name}/", ())) > 1]
        _check_siblings(above, {name: stems[f"{above}{name}/"] for name in siblings}, root, where)


def _check_siblings(above: str, siblings: dict[str, set[str]], root: Folder, where: str) -> None:
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for name, stems in siblings.items():
        for stem in stems:
            holders[stem].append(name)
    shared = Counter(
        pair for names in holders.values() if len(names) <= _SHARED_BY for pair in combinations(sorted(names), 2)
    )
    for (one, other), count in shared.items():
        if count < _ALIKE * min(len(siblings[one]), len(siblings[other])):
            continue
        companions = [name for name in (one, other) if _COMPANION.fullmatch(name)]
        if not companions and _are_numbered(siblings[one] & siblings[other]):
            continue
        second = companions[-1] if companions else min(other, one, key=lambda name: len(siblings[name]))
        pattern = f"*/{log.printable(second)}/" if above else f"{log.printable(second)}/"
        examples = join_names(sorted(siblings[one] & siblings[other])[:3])
        raise DataError(
            f"the folders {join_names([above + one, above + other])} under {where} hold files of the same names "
            f"({examples}): one of them seems to describe the other's images, as masks do, and is no class. "
            f"Found:{root.draw()}",
            remedy=f"leave it out with --input.exclude '{pattern}'; if both are classes all the same, say so: "
            "input.layout=classes",
        )


def _are_numbered(stems: set[str]) -> bool:
    """Whether names differ by numbers alone, as those that a camera, a script or a file manager gives: image (7)."""
    forms = {re.sub("[0-9]+", "0", stem) for stem in stems}
    return len(forms) == 1 or 10 * len(forms) <= len(stems)
