"""Compares names by what they print as: characters without a shape, wide forms, letters of other scripts."""

# ruff: noqa: RUF001 (letters that look alike)

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters that print as nothing: default-ignorable ones, and the blanks among the letters of Hangul."""

_LIKE_LATIN = str.maketrans(
    "асԁеһіјӏорԛѕԝхуԜАВСЕНІЈКМОРЅТХҮУΑΒΕΖΗΙΚΜΝΟΡΤΥΧονϲϳօսհո",
    "acdehijlopqswxyWABCEHIJKMOPSTXYYABEZHIKMNOPTYXovcjouhn",
)
"""Cyrillic, Greek and Armenian letters, and the Latin ones that they print like (from Unicode's UTS #39)."""

_SAME_SHAPE = {"<wide>", "<narrow>", "<font>", "<noBreak>", "<compat>"}
"""Kinds of compatibility characters that print like those they stand for: a wide c for c, but not a raised 2 for 2."""

_SIMILAR = str.maketrans({"0": "O", "1": "l", "I": "l", "|": "l", "5": "S", "’": "'", "`": "'", "–": "-", "—": "-"})
"""Characters that a person confuses in many fonts."""


def printed(label: str) -> str:
    """Return what a label prints as: two labels of which it is the same cannot be told apart."""
    visible = "".join(
        unicodedata.normalize("NFKC", letter)
        if unicodedata.decomposition(letter).split(" ")[0] in _SAME_SHAPE
        else letter
        for letter in _INVISIBLE.sub("", label)
    )
    # note: before the case is folded, for a capital may print like a Latin letter where the small one does not
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", visible).translate(_LIKE_LATIN).casefold())
    return " ".join(folded.translate(_LIKE_LATIN).split())


def similar_form(label: str) -> str:
    """Return a form in which labels are equal that a person confuses in many fonts: l1 and ll, rn and m."""
    return label.translate(_SIMILAR).replace("rn", "m").replace("vv", "w")


def has_invisible(label: str) -> bool:
    """Whether a label has a character that prints as nothing, other than those that join the parts of an emoji."""
    return _INVISIBLE.search(re.sub("[\u200c\u200d\ufe0f]", "", label)) is not None
