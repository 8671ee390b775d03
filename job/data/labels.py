"""Split codes and names, and the check of class names."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from job.data.lookalikes import has_invisible, printed, similar_form
from job.errors import DataError
from job.observability import log

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
    "eval": VALIDATION,
    "evaluation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
"""Accepted names of the splits, in any letter case: of folders, and in a manifest's split column."""

NOT_IN_LABELS = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, surrogates, line and paragraph separators."""


def check_labels(labels: Collection[str]) -> None:
    """Reject class names that people or file systems could not tell apart, or that ``labels.txt`` could not hold.

    Raises:
        DataError: two differ only by case, whitespace, Unicode form, width, characters that print as nothing, or
            letters of another script that print alike; one has a line break or is not Unicode text.
    """
    seen: dict[str, str] = {}
    for label in sorted(labels):
        if not label.strip() or any(unicodedata.category(letter) in NOT_IN_LABELS for letter in label):
            raise DataError(
                f"the class name {label!r} is blank, or holds a control character or bytes that are not UTF-8",
                remedy="rename the class: names are written one a line into labels.txt, as UTF-8",
            )
        if not printed(label):
            raise DataError(f"the class name {label!a} prints as nothing", remedy="rename the class")
        twin = seen.setdefault(printed(label), label)
        if twin != label:
            raise DataError(
                f"the class names {twin!r} and {label!r} print alike, or differ only by case, blanks or Unicode form"
                f"{_code_points(twin, label)}",
                remedy="merge them into one class, or rename one of them so that a person can tell them apart",
            )
    _warn_of_similar(labels)


def _code_points(*labels: str) -> str:
    """Return the first characters of labels by number and name, where there are others than plain ASCII."""
    if all(map(str.isascii, labels)):
        return ""
    shown = (
        " ".join(c if c.isascii() else f"U+{ord(c):04X} {unicodedata.name(c, '')}".rstrip() for c in label[:12])
        for label in labels
    )
    return f": {'; '.join(shown)}"


def _warn_of_similar(labels: Collection[str]) -> None:
    """Warn of class names that are easily confused, and of those with characters that print as nothing."""
    seen: dict[str, str] = {}
    similar = []
    for label in sorted(labels):
        twin = seen.setdefault(similar_form(label), label)
        if twin != label:
            similar.append(f"{twin!a} and {label!a}")
    if similar:
        log.get().warning("input.labels_similar", count=len(similar), pairs=similar[:5])
    if invisible := [ascii(label) for label in sorted(labels) if has_invisible(label)]:
        log.get().warning("input.labels_invisible", count=len(invisible), labels=invisible[:5])


def join_names(names: Collection[str]) -> str:
    """Join names for a message, at most the first five."""
    shown = ", ".join(map(repr, list(names)[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
