"""Derives labels and splits from folders, by their shape and by the names that public data sets use.

What can be read in two ways is refused: a split, a site or a folder of masks that is trained as a class gives a model
that nobody asked for. docs/adr/0012-folders-by-shape.md has the reasons and the rules.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from job.data import companions, parts
from job.data.labels import SPLIT_NAMES, TRAIN, join_names
from job.data.split_words import split_codes
from job.data.tree import Folder
from job.errors import DataError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


LAYOUT = (
    "put each class's images in a folder of its own (cats/1.jpg, dogs/1.jpg), or these class folders below "
    "train/, validation/ and test/, or give a CSV or JSONL manifest of image URI, label and split"
)
"""The supported layouts of an input, for remedies."""

Choice = Literal["auto", "classes", "splits"]

_BY_HAND = "if the top folders are the classes all the same, say so: input.layout=classes"

_CONTAINER = re.compile(r"images?|imgs?|pics?|pictures?|photos?|data|jpe?gs?|pngs?|files|raw", re.IGNORECASE)
"""Folders that hold images and say nothing about them."""

_NUMBER_OR_DATE = re.compile(r"[\W\d_]*\d[\W\d_]*|(?:part|batch|session|day|week|month|year)?[\W_]*\d+", re.IGNORECASE)

_CLASSES_TOO = {"train", "training"}
"""Split words that are things or activities as well: buses, cars and trains."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How folder names map to classes and splits.

    Attributes:
        splits: top folder -> split code; empty if the top folders are the classes.
        doubled: top folders whose class folders lie in one more folder: ``training_set/training_set/cats``.
    """

    splits: dict[str, int]
    doubled: frozenset[str] = frozenset()

    @classmethod
    def detect(cls, names: Sequence[str], choice: Choice = "auto", where: str = "the input") -> Layout:
        """Detect the layout: the top folders are splits if all are called like splits and one is train, else classes.

        Args:
            names: of the images, relative to the input.
            choice: what the top folders are, if that is known.
            where: the input's URI, for messages.

        Raises:
            DataError: the top folders are neither, or may be both.
        """
        root = Folder.of(names)
        if choice == "classes" or not root.folders:
            return cls({})
        splits = split_codes(root.folders)
        if choice == "splits" or (TRAIN in splits.values() and len(splits) == len(root.folders)):
            layout = cls._of_splits(root, splits, where)
            companions.check(names, root, where)
            return layout
        _check_wrapper(root, where)
        if splits:
            _check_splits_beside_others(root, splits, where)
        companions.check(names, root, where)
        _check_copy(root, "", root, where)
        _check_repeated(root, root, where)
        parts.check(names, root, where)
        return cls({})

    @classmethod
    def _of_splits(cls, root: Folder, splits: dict[str, int], where: str) -> Layout:
        if others := [name for name in root.folders if name not in splits]:
            raise _refused(
                f"input.layout is splits, but {join_names(others)} is called like none (known: {_known()})",
                root,
                where,
                f"rename these folders, or leave them out: {_exclude(others)}",
            )
        if TRAIN not in splits.values():
            raise _no_train(root, splits, where)
        doubled = frozenset(name for name in splits if _is_doubled(root.folders[name], name))
        for name, code in splits.items():
            folder = root.folders[name]
            path = name
            if name in doubled:
                [(inner_name, folder)] = folder.folders.items()
                path = f"{name}/{inner_name}"
            if folder.is_flat or all(map(_CONTAINER.fullmatch, folder.folders)):
                raise _flat(root, path, code, where)
            if code == TRAIN:
                _check_copy(folder, f"{path}/", root, where)
                _check_repeated(folder, root, f"{where}/{path}")
        found = {name: SPLIT_NAMES[code] for name, code in splits.items()}
        if doubled or any(name.lower() != split for name, split in found.items()):
            log.get().info("input.splits_found", folders=found, doubled=sorted(doubled))
        return cls(splits, doubled)

    def parse(self, name: str) -> tuple[str, int] | None:
        """Return the label and split code of a name; None if it is above the class folders."""
        top, *below = name.split("/", 1)
        if not self.splits:
            return (top, 0) if top and below else None
        if top in self.doubled and below:
            below = below[0].split("/", 1)[1:]
        label, *rest = below[0].split("/", 1) if below else ("",)
        # An empty part comes from two slashes in an object's name; no tool shows it as a folder.
        return (label, self.splits[top]) if top and label and rest else None


def _is_doubled(folder: Folder, name: str) -> bool:
    """Whether a split's class folders lie in one more folder, which has its name or none that says anything."""
    if folder.images or len(folder.folders) != 1:
        return False
    [inner_name] = folder.folders
    return bool(inner_name.lower() == name.lower() or _CONTAINER.fullmatch(inner_name) or split_codes([inner_name]))


def _check_wrapper(root: Folder, where: str) -> None:
    """Refuse one folder that holds all the others."""
    path, folder = where.rstrip("/"), root
    while len(folder.folders) == 1 and not folder.images * 10 > folder.total:
        [(name, folder)] = folder.folders.items()
        path = f"{path}/{log.printable(name)}"
    if folder is not root and len(folder.folders) > 1 and not folder.is_flat:
        raise _refused(
            "one folder holds all the others, and would be the only class",
            root,
            where,
            f"did you mean {path}?",
        )


def _check_splits_beside_others(root: Folder, splits: dict[str, int], where: str) -> None:
    """Refuse folders that are called like splits beside others that are not, unless they can only be classes."""
    others = [name for name in root.folders if name not in splits]
    if not others:
        raise _no_train(root, splits, where)
    flat = all(folder.is_flat for folder in root.folders.values())
    [only, *more] = splits
    # A class may be called train, if it is one of several; and good and bad pictures are called valid and invalid.
    if flat and not more and (only.lower() == "valid" or (only.lower() in _CLASSES_TOO and len(others) > 1)):
        log.get().info("input.layout_found", classes="the top folders", although=f"{only!r} is called like a split")
        return
    raise _refused(
        f"beside folders that are called like splits ({join_names(splits)}) there are others ({join_names(others)})",
        root,
        where,
        f"leave out what is neither: {_exclude(others if TRAIN in splits.values() else splits)}; rename splits (known: "
        f"{_known()}); {_BY_HAND}",
    )


def _check_copy(classes: Folder, above: str, root: Folder, where: str) -> None:
    """Refuse a folder that holds the others once more: all/{cats,dogs} beside cats/ and dogs/.

    Args:
        classes: holds the class folders.
        above: its path below the root, with a trailing slash.
        root: the folders.
        where: the input's URI.
    """
    siblings = {name.casefold() for name in classes.folders}
    for name, folder in classes.folders.items():
        inside = {below.casefold() for below in folder.folders} - {name.casefold()}
        if folder.is_flat or not inside or 2 * len(inside & siblings) < len(inside):
            continue
        same = join_names(sorted(inside & siblings))
        raise _refused(
            f"{above + name!r} holds folders that are called like those beside it ({same}): "
            "a copy of the data inside itself, or another level",
            root,
            where,
            f"leave it out with {_exclude([above + name])}, or give {where.rstrip('/')}/{log.printable(above + name)} "
            f"alone; {_BY_HAND}",
        )


def _check_repeated(classes: Folder, root: Folder, where: str) -> None:
    """Refuse top folders that hold no images themselves and hold folders of the same names: splits or sites."""
    deep = {name: folder for name, folder in classes.folders.items() if not folder.is_flat}
    below = {name: _names_below(folder) for name, folder in deep.items()}
    times = Counter(name for names in below.values() for name in names)
    alike = [top for top, names in below.items() if names and 2 * sum(times[name] > 1 for name in names) >= len(names)]
    if len(alike) > 1 or (alike and 2 * len(alike) >= len(below) > 1):
        repeated = sorted(name for name, count in times.items() if count > 1)
        raise _refused(
            f"{join_names(list(below))} hold folders of the same names ({join_names(repeated)}): they look like splits "
            "or sites, and not like classes",
            root,
            where,
            f"rename split folders (known: {_known()}); give one of these folders as input.uri; write a manifest with "
            f"a row for each image; {_BY_HAND}",
        )
    inside = Counter(name for folder in deep.values() for name in folder.folders if _says_nothing(name))
    if repeated := sorted(name for name, count in inside.items() if count > 1):
        log.get().info("input.layout_found", classes="the top folders", although=f"all hold {join_names(repeated)}")


def _names_below(folder: Folder) -> set[str]:
    """Return the names of the folders in it that may be classes: below numbers, dates and containers, those there."""
    names: set[str] = set()
    for name, inner in folder.folders.items():
        if _says_nothing(name):
            names |= _names_below(inner)
        else:
            names.add(name.casefold())
    return names


def _says_nothing(name: str) -> bool:
    """Whether a folder below a class may be called so: a number, a date, or what it holds."""
    return bool(_NUMBER_OR_DATE.fullmatch(name) or _CONTAINER.fullmatch(name))


def _no_train(root: Folder, splits: dict[str, int], where: str) -> DataError:
    return _refused(
        f"they are called like splits ({join_names(splits)}), and there is none to train on (known: {_known()})",
        root,
        where,
        f"add train/, or give one of these folders as input.uri; {_BY_HAND}",
    )


def _flat(root: Folder, name: str, code: int, where: str) -> DataError:
    left_out = "" if code == TRAIN else f"; a split without labels is left out with {_exclude([name])}"
    return _refused(
        f"{name!r} is called like a split, and its images lie in no class folders: their labels seem to be in their "
        "names, or in a table",
        root,
        where,
        f"{LAYOUT}{left_out}; {_BY_HAND}",
    )


def _refused(problem: str, root: Folder, where: str, remedy: str) -> DataError:
    return DataError(
        f"the folders under {where} cannot be read as classes: {problem}. Found:{root.draw()}", remedy=remedy
    )


def _exclude(names: Iterable[str]) -> str:
    return f"--input.exclude '{','.join(log.printable(name) + '/' for name in list(names)[:5])}'"


def _known() -> str:
    return "train, training; validation, valid, val, eval, dev; test, testing; also as train_images, testset, seg_train"
