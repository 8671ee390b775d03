"""Labels and splits from folder names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.data.labels import SPLIT_WORDS, TRAIN, listed
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable


LAYOUT = (
    "put each class's images in a folder of its own (cats/1.jpg, dogs/1.jpg), or these class folders below "
    "train/, validation/ and test/, or give a CSV or JSONL manifest of image URI, label and split"
)
"""What an input may look like, for remedies."""

# What desktops, notebooks, archives and network drives leave behind, at any depth.
_LITTER = re.compile(
    r"(?:^|/)(?:\.|~\$|(?:__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information)/)", re.IGNORECASE
)
_NOT_AN_IMAGE = re.compile(
    r"\.(?:txt|md|rst|log|csv|tsv|json|jsonl|ndjson|xml|ya?ml|toml|ini|cfg|html?|pdf|docx?|xlsx?|py|pyc|ipynb|sh|js|"
    r"db|sqlite|npy|npz|pkl|h5|keras|pb|tfrecord|zip|tar|gz|tgz|7z|rar)$",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"\.(?:jpe?g|jpe|jfif|png|gif|bmp|webp|avif|hei[cf]|tiff?)$", re.IGNORECASE)


def is_ignored(name: str) -> bool:
    """Whether a file is no picture of anybody's class: hidden, left behind by a tool, or plainly of another kind.

    Args:
        name: relative to the input. Directly in the input's root (a README, a licence) everything that does not call
            itself an image is litter; in a class folder only what plainly is none, such as annotations beside images.
    """
    if _LITTER.search(name) or _NOT_AN_IMAGE.search(name):
        return True
    return "/" not in name and not _IMAGE.search(name)


@dataclass(frozen=True, slots=True)
class Layout:
    """How folders give an image its class.

    Attributes:
        splits: top folder -> split code; empty where the top folders are the classes.
    """

    splits: dict[str, int]

    @classmethod
    def of(cls, names: Iterable[str]) -> Layout:
        """Find the layout: all top folders are called like splits, one of them train, or else they are classes.

        Raises:
            DataError: split folders and others lie side by side, so that either reading would be a guess.
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
                f"the folders {listed(splits)} are splits, but {listed(others)} beside them are not",
                remedy="keep only train/, validation/ and test/ there, with a folder per class in each; "
                "or move these below a folder of another name if they are classes",
            )
        return cls({})  # a class may well be called train: there are buses, cars and trains

    def read(self, name: str) -> tuple[str, int] | None:
        """Return the label and the split's code that a name gives, None where it lies above the class folders."""
        top, *below = name.split("/", 2 if self.splits else 1)
        if not self.splits:
            return (top, 0) if top and below else None
        # An empty part is what two slashes in an object's name make; it is no folder that anybody sees.
        return (below[0], self.splits[top]) if top and len(below) == 2 and below[0] else None
