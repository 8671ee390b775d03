"""Derives labels and splits from folder names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.data.labels import SPLIT_WORDS, TRAIN, join_names
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable


LAYOUT = (
    "put each class's images in a folder of its own (cats/1.jpg, dogs/1.jpg), or these class folders below "
    "train/, validation/ and test/, or give a CSV or JSONL manifest of image URI, label and split"
)
"""The supported layouts of an input, for remedies."""

# Files that desktops, notebooks, archivers and network drives leave behind, at any depth.
_LEFTOVERS = re.compile(
    r"(?:^|/)(?:\.|~\$|(?:__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information)/)", re.IGNORECASE
)
_NOT_AN_IMAGE = re.compile(
    r"\.(?:txt|md|rst|log|csv|tsv|json|jsonl|ndjson|xml|ya?ml|toml|ini|cfg|html?|pdf|docx?|xlsx?|py|pyc|ipynb|sh|js|"
    r"db|sqlite|npy|npz|pkl|h5|keras|pb|tfrecord|zip|tar|gz|tgz|7z|rar)$",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|webp|avif|hei[cf]|tiff?)$", re.IGNORECASE)


def is_ignored(name: str) -> bool:
    """Whether a file is not an image of any class: hidden, left behind by a tool, or of another type.

    Args:
        name: relative to the input. In the input's root (a README, a licence) every file without an image suffix is
            ignored; in a class folder only files with a known other suffix, such as annotations beside images.
    """
    if _LEFTOVERS.search(name) or _NOT_AN_IMAGE.search(name):
        return True
    return "/" not in name and not has_image_suffix(name)


def has_image_suffix(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return _IMAGE.search(name) is not None


@dataclass(frozen=True, slots=True)
class Layout:
    """How folder names map to classes and splits.

    Attributes:
        splits: top folder -> split code; empty if the top folders are the classes.
    """

    splits: dict[str, int]

    @classmethod
    def detect(cls, names: Iterable[str]) -> Layout:
        """Detect the layout: the top folders are splits if all have split names and one is train, else classes.

        Raises:
            DataError: split folders and others are siblings, so that either reading would be a guess.
        """
        tops = sorted({name.partition("/")[0] for name in names if "/" in name} - {""})
        splits = {top: SPLIT_WORDS[top.lower()] for top in tops if top.lower() in SPLIT_WORDS}
        if TRAIN not in splits.values():
            return cls({})
        others = [top for top in tops if top not in splits]
        if not others:
            return cls(splits)
        if len(set(splits.values())) > 1:
            raise DataError(
                f"the folders {join_names(splits)} are splits, but {join_names(others)} beside them are not",
                remedy="keep only train/, validation/ and test/ there, with a folder per class in each; "
                "or move these below a folder of another name if they are classes",
            )
        return cls({})  # a class may be called train: buses, cars and trains

    def parse(self, name: str) -> tuple[str, int] | None:
        """Return the label and split code of a name; None if it is above the class folders."""
        top, *below = name.split("/", 2 if self.splits else 1)
        if not self.splits:
            return (top, 0) if top and below else None
        # An empty part comes from two slashes in an object's name; no tool shows it as a folder.
        return (below[0], self.splits[top]) if top and len(below) == 2 and below[0] else None
