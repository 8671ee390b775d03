"""Parses the rows of a JSON Lines manifest.

Beside keys of known names, these are Vertex AI's ``imageGcsUri``, ``classificationAnnotation`` and
``dataItemResourceLabels``.
"""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING, NoReturn

from job.data.columns import LABEL, ONE_LABEL, ROLES, SPLIT, ColumnError, Fields, RowError
from job.data.labels import join_names
from job.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.data.columns import Chosen, Role, SplitSearch
    from job.uri import Location

_SHOWN_KEYS = 20


def read(data: bytes, table: Location, chosen: Chosen, search: SplitSearch) -> Iterator[tuple[int, Fields | RowError]]:
    """Yield the line of each row that is not blank, and its values or why it has none.

    Args:
        data: the whole file.
        table: its location.
        chosen: the keys that the settings name.
        search: receives the keys that are not used.

    Raises:
        DataError: it is another form of JSON, or no row has a key that the settings name. Raised after the last row.
        UnicodeDecodeError: it is not UTF-8.
    """
    is_first = True
    absent, keys = {role: name for role, name in zip(ROLES, chosen, strict=True) if name}, dict[str, None]()
    for number, line in enumerate(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), 1):
        if not line.strip():
            continue
        if is_first:
            _check_form(line.strip(), table)
            is_first = False
        try:
            item = _load(line)
            absent = {role: name for role, name in absent.items() if not role.find([*item], name)}
            keys |= dict.fromkeys(itertools.islice(item, _SHOWN_KEYS)) if absent and len(keys) < _SHOWN_KEYS else {}
            yield number, _parse(item, chosen, search)
        except RowError as error:
            yield number, error
    for role, name in absent.items():
        if keys and not role.required:  # of the others, every row is reported
            raise DataError(
                f"{table}: no row has the key {name!r} ({role.setting}): the keys are {join_names(keys)}",
                remedy=f"name one of them in {role.setting}, or leave it empty",
            )


def _check_form(first: str, table: Location) -> None:
    """Reject other JSON by its first line that is not blank."""
    if first.startswith("[") or first == "{":
        form = "array" if first.startswith("[") else "object of several lines"
        raise DataError(
            f"{table} is a JSON {form}, not JSON Lines",
            remedy='write one object a line, such as {"image": "1.jpg", "label": "cat"}; jq -c ".[]" converts an array',
        )


def _load(line: str) -> dict[str, object]:
    try:
        item = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RowError(f"not JSON: {error}") from error
    if not isinstance(item, dict):
        raise RowError(f"expected a JSON object, got {line.strip()[:40]!r}")
    return item


def _parse(item: dict[str, object], chosen: Chosen, search: SplitSearch) -> Fields:
    keys = [_find_key(item, role, name) for role, name in zip(ROLES, chosen, strict=True)]
    image, label, split, group = (None if key is None else item[key] for key in keys)
    unknown = [role for role, key in zip(ROLES, keys, strict=True) if key is None]
    if not chosen.label and (display_name := _vertex_label(item)) is not None:
        label, unknown = display_name, [role for role in unknown if role is not LABEL]
    match item:
        case {"dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": use}} if not chosen.split:
            split, unknown = use, [role for role in unknown if role is not SPLIT]
    if unknown and unknown[0].required:
        raise ColumnError(f"no key is known to hold the {unknown[0].what}: {join_names(item)}")
    if SPLIT in unknown and search.is_open:
        search.add({key: value for key, value in item.items() if key not in keys})
    return Fields(_text(image), _text(label).strip(), _text(split).strip(), _text(group).strip())


def _find_key(item: dict[str, object], role: Role, chosen: str) -> str | None:
    """Return the single key that holds this; None if there is none."""
    keys = list(item)
    found = role.find(keys, chosen)
    if len(found) > 1:
        raise RowError(
            f"{keys[found[0]]!r} and {keys[found[1]]!r} could be the same: name the right one in {role.setting}"
        )
    if chosen and not found and role.required:  # a writer may omit a split or a group that is null
        raise RowError(f"there is no key {chosen!r} ({role.setting}): {join_names(item)}")
    return keys[found[0]] if found else None


def _vertex_label(item: dict[str, object]) -> object:
    """Return the label in Vertex AI's form; None if there is none."""
    match item:
        case {"classificationAnnotations": [_, _, *_] as annotations}:
            raise RowError(f"{len(annotations)} labels: {ONE_LABEL}")
        case {"classificationAnnotation": {"displayName": name}} | {
            "classificationAnnotations": [{"displayName": name}]
        }:
            return name
    return None


def _text(value: object) -> str:
    """Return a JSON value as text: integers are accepted, since classes may be numbered."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowError(f"expected text for image, label, split and group, got a {type(value).__name__}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
