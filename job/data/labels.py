"""What a name says: whether it is litter, which class it belongs to, and which split.

Pure functions over names; nothing is read here.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection


TRAIN, VALIDATION, TEST = 1, 2, 3
"""The codes of a split, wherever one is stored as a number; 0 is "not named by the input"."""

SPLIT_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}

SPLIT_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
"""How people call the splits, in any case of letters: folders, and the values of a manifest's split column."""


NOT_IN_LABELS = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, surrogates, and separators of lines and paragraphs."""


def check_labels(labels: Collection[str]) -> None:
    """Refuse class names that a person, a file system or ``labels.txt`` could not tell apart or hold.

    Raises:
        DataError: two differ only by case, blanks or Unicode form; one has a line break or is not Unicode text.
    """
    seen: dict[str, str] = {}
    for label in sorted(labels):
        if not label.strip() or any(unicodedata.category(letter) in NOT_IN_LABELS for letter in label):
            raise DataError(
                f"the class name {label!r} is blank, or holds a control character or bytes that are not UTF-8",
                remedy="rename the class: names are written one a line into labels.txt, as UTF-8",
            )
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", label).casefold())
        twin = seen.setdefault(" ".join(folded.split()), label)
        if twin != label:
            raise DataError(
                f"the class names {twin!r} and {label!r} differ only by case, blanks or Unicode form"
                f" ({twin!a} and {label!a})",
                remedy="merge them into one class, or rename one of them so that a person can tell them apart",
            )


def listed(names: Collection[str]) -> str:
    """Write names for a message: the first few of many."""
    shown = ", ".join(map(repr, list(names)[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
