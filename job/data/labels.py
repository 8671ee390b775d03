"""Split codes and names, and the check of class names."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection


TRAIN, VALIDATION, TEST = 1, 2, 3
"""The numeric codes of the splits; 0 is "not named by the input"."""

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
"""Accepted names of the splits, in any letter case: of folders, and in a manifest's split column."""

NOT_IN_LABELS = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, surrogates, line and paragraph separators."""


def check_labels(labels: Collection[str]) -> None:
    """Reject class names that people or file systems could not tell apart, or that ``labels.txt`` could not hold.

    Raises:
        DataError: two differ only by case, whitespace or Unicode form; one has a line break or is not Unicode text.
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


def join_names(names: Collection[str]) -> str:
    """Join names for a message, at most the first five."""
    shown = ", ".join(map(repr, list(names)[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
