"""Finds top folders that are parts of one set and no classes: numbered alike, or on another level than the others."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from job.data.labels import join_names
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.data.tree import Folder

_DIGITS = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]{2,}")

_CAMERA_WORDS = frozenset({
    "img", "imgs", "image", "images", "dsc", "dscn", "dscf", "dcim", "pic", "pics", "picture", "photo", "photograph",
    "pxl", "mvimg", "screenshot", "whatsapp", "scan", "frame", "file", "sample", "video", "snapshot",
    "signal", "gopr", "sam",
})  # fmt: skip
"""Words that cameras and programs begin a file's name with: they are no labels."""

_USUAL = 0.02
"""Share of a folder's files that begin with a word, from which on the word is not there by chance."""

_UNLABELLED = re.compile(r"(?:.*[\W_])?(?:un[\W_]?(?:label+ed|annotated)|unsup(?:ervised)?)(?:[\W_].*)?", re.IGNORECASE)


def check(names: Sequence[str], root: Folder, where: str) -> None:
    """Refuse numbered folders whose files carry the labels, and unlabelled images beside folders of classes.

    What may also be classes is a warning: patients or batches (``patient_1``, ``patient_2``) look like grades, and
    a class may have folders of its own where its sibling has none.

    Args:
        names: of the images, relative to the input.
        root: the folders.
        where: the input's URI, for messages.

    Raises:
        DataError: the folders are parts of one set.
    """
    _check_levels(root, where)
    if len(root.folders) < 2 or not all(folder.is_flat for folder in root.folders.values()):
        return
    patterns = {_DIGITS.sub("#", name) for name in root.folders}
    [pattern, *others] = patterns
    if others or "#" not in pattern or not _WORD.search(pattern):
        return  # "0" to "9" are classes
    if labels := _labels_in_names(names):
        raise _refused(
            f"{join_names(list(root.folders))} differ by a number only, and hold files of the same kinds "
            f"({join_names([f'{word}…' for word in labels])}): they look like parts of one set, with the labels in the "
            "names of the files",
            root,
            where,
            "put each class's images in a folder of its own, or write a CSV or JSONL manifest of image URI and label",
        )
    log.get().warning(
        "input.folders_numbered",
        folders=list(root.folders)[:10],
        note="the classes differ by a number only: parts, patients and batches are no classes",
    )


def _labels_in_names(names: Sequence[str]) -> list[str]:
    """Return the words that files in every top folder begin with, if there are several that no camera writes."""
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name in names:
        top, _, file = name.partition("/")
        if match := _WORD.match(file.rpartition("/")[2]):
            words[top][match[0].lower()] += 1
    usual = [
        {word for word, count in found.items() if count >= _USUAL * found.total()} - _CAMERA_WORDS
        for found in words.values()
    ]
    shared = sorted(set.intersection(*usual)) if usual else []
    return shared if len(shared) > 1 else []


def _check_levels(root: Folder, where: str) -> None:
    """Look for folders of classes beside folders of images."""
    deep = [name for name, folder in root.folders.items() if not folder.images and len(folder.folders) > 1]
    flat = [name for name, folder in root.folders.items() if folder.is_flat]
    if not deep or not flat:
        return
    if unlabelled := [name for name in flat if _UNLABELLED.fullmatch(name)]:
        raise _refused(
            f"{join_names(unlabelled)} is called like images without labels, beside folders of classes",
            root,
            where,
            f"give {where.rstrip('/')}/{log.printable(deep[0])} as input.uri"
            if len(deep) == 1
            else f"leave it out with --input.exclude '{log.printable(unlabelled[0])}/'",
        )
    log.get().warning(
        "input.levels_differ",
        folders_inside=deep[:10],
        images_inside=flat[:10],
        note="each top folder is a class, with all below it",
    )


def _refused(problem: str, root: Folder, where: str, remedy: str) -> DataError:
    return DataError(
        f"the folders under {where} cannot be read as classes: {problem}. Found:{root.draw()}",
        remedy=f"{remedy}; if the top folders are the classes all the same, say so: input.layout=classes",
    )
