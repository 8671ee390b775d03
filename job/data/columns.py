"""Finds the columns of a table that hold image, label, split and group: by the settings, else by known names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from job.data.labels import SPLIT_WORDS, TEST, VALIDATION
from job.data.litter import has_image_suffix
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ONE_LABEL = "expected one label: images of several classes are not supported"

SPLITS = SPLIT_WORDS | {"unassigned": 0, "": 0}
"""Accepted values of the split column, in lower case -> split code."""

_SEPARATORS = str.maketrans("", "", " _-")


class Fields(NamedTuple):
    """The unparsed values of a row; empty if absent."""

    image: str
    label: str
    split: str
    group: str = ""


class RowError(Exception):
    """A row cannot be used."""


class ColumnError(RowError):
    """It is unknown which of a row's columns holds what."""


@dataclass(frozen=True)
class Role:
    """What a column may hold. Names are in lower case, without spaces, "_" and "-".

    Attributes:
        what: the content, for messages.
        setting: name of the setting that names the column.
        names: known names of the column; none: only the setting names one.
        weak_names: known names that count only where no column has one of ``names``: beside ``image_uri``, a column
            ``image_id`` probably holds something else.
        required: whether every table has such a column.
    """

    what: str
    setting: str
    names: frozenset[str]
    weak_names: frozenset[str] = frozenset()
    required: bool = True

    def find(self, columns: Sequence[str], chosen: str) -> list[int]:
        """Return the positions of the columns that hold this; more than one if it is ambiguous.

        Args:
            columns: the names in the table.
            chosen: value of the setting; empty: known names are searched.
        """
        if chosen and (exact := [i for i, name in enumerate(columns) if name.strip() == chosen.strip()]):
            return exact
        keys = [_key(name) for name in columns]
        for names in ({_key(chosen)} - {""},) if chosen else (self.names, self.weak_names):
            if found := [i for i, key in enumerate(keys) if key in names]:
                return found
        return []


IMAGE = Role(
    "image URI",
    "input.image_column",
    frozenset({
        "image", "imageuri", "imageurl", "imagepath", "imagegcsuri", "gcsuri", "gcsfilepath", "uri", "url", "path",
        "file", "filename", "filepath",
    }),
    frozenset({"imageid", "imagename", "imagefile", "img", "imgpath", "imgname"}),
)  # fmt: skip
LABEL = Role(
    "label",
    "input.label_column",
    frozenset({"label", "class", "classname", "category"}),
    frozenset({"target", "labelname", "targetname", "categoryname"}),
)
SPLIT = Role("split", "input.split_column", frozenset({"split", "mluse", "set", "subset"}), required=False)
GROUP = Role("group", "input.group_column", frozenset(), required=False)
ROLES = (IMAGE, LABEL, SPLIT, GROUP)


class Chosen(NamedTuple):
    """The columns that the settings name; empty: the one with a known name is used."""

    image: str = ""
    label: str = ""
    split: str = ""
    group: str = ""


def known_names() -> str:
    """Return the remedy for a table whose columns are unknown."""
    known = [role for role in ROLES if role.names]
    names = "; ".join(f"for the {role.what} {', '.join(sorted(role.names | role.weak_names))}" for role in known)
    return (
        f"name the columns in {', '.join(role.setting for role in known)}, or rename them in the file. The known names "
        f"are, in any letter case and with or without blanks, '_' and '-': {names}"
    )


def is_like_header(cells: Sequence[str]) -> bool:
    """Whether a row looks like names of columns: words, and no image's path or URI."""
    texts = [cell.strip() for cell in cells if cell.strip()]
    return (
        len(texts) > 1
        and cells[0].strip().lower() not in SPLIT_WORDS  # Vertex AI's rows may begin with the split
        and all("/" not in text and not has_image_suffix(text) and any(map(str.isalpha, text)) for text in texts)
    )


class SplitSearch:
    """Finds a column that holds splits although neither its name nor a setting says so.

    Images that such a column holds out would be trained on.
    """

    def __init__(self) -> None:
        self._codes: dict[str, set[int]] | None = (
            None  # of each column that may hold splits; None: before the first row
        )

    @property
    def is_open(self) -> bool:
        """Whether a column may still be found."""
        return self._codes is None or bool(self._codes)

    def add(self, unused: Mapping[str, object]) -> None:
        """Inspect a row's values in the columns that are not used."""
        if self._codes is None:
            self._codes = {name: set() for name in unused}
        for name in list(self._codes):
            value = unused.get(name)
            text = value.strip().lower() if isinstance(value, str) else ""
            if text and text in SPLITS:
                self._codes[name].add(SPLITS[text])
            else:
                del self._codes[name]

    def check(self, table: object) -> None:
        """Reject the table if a column that is not used names a split in every row, and not always train.

        Raises:
            DataError: it does.
        """
        for name, codes in (self._codes or {}).items():
            if codes & {VALIDATION, TEST}:
                raise DataError(
                    f"{table}: every row names a split in the column {name!r}, which is not used, so images that it "
                    "holds out would be trained on",
                    remedy=f"set input.split_column={name} to use it, or remove the column",
                )


def _key(name: str) -> str:
    return name.strip().lower().translate(_SEPARATORS)
