"""Tells which folders are called like splits, as data sets are published: Training, val_256, seg_test, trainset."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from job.data.labels import SPLIT_WORDS

if TYPE_CHECKING:
    from collections.abc import Collection

_THINGS = "sets?|data|datasets?|images?|imgs?|pics?|pictures?|photos?|splits?|folders?|dir|files?|samples?|examples?"

_WORD = re.compile(rf"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?:{_THINGS})?")
"""A split word, alone or with one of the things glued to it: trainset."""

_THING = re.compile(_THINGS)

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")
"""Words of a name, also of one in camel case; digits and signs part them."""


def split_codes(names: Collection[str]) -> dict[str, int]:
    """Return name -> split code of those among sibling folders that are called like a split.

    A name is one by a split word alone (``Train``, ``test1``), with a word such as "set" or "images" (``train_images``,
    ``testset``), or with words that a sibling of another split has, too: ``seg_train`` beside ``seg_test``. So a class
    ``test_tube`` is none.

    Args:
        names: of all folders in one folder.
    """
    read = {name: found for name in names if (found := _read(name))}
    codes_beside: dict[str, set[int]] = {}
    for code, others in read.values():
        codes_beside.setdefault(others, set()).add(code)
    return {name: code for name, (code, others) in read.items() if not others or len(codes_beside[others]) > 1}


def _read(name: str) -> tuple[int, str] | None:
    """Return the split code of a name that has one split word, and its other words; else None."""
    tokens = [token.lower() for token in _TOKEN.findall(name)]
    words = [match[1] for token in tokens if (match := _WORD.fullmatch(token))]
    if len({SPLIT_WORDS[word] for word in words}) != 1:
        return None
    others = [token for token in tokens if not _WORD.fullmatch(token) and not _THING.fullmatch(token)]
    return SPLIT_WORDS[words[0]], " ".join(others)
