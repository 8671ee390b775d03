"""Reference generated from the settings: the table of docs/settings.md, the help, the JSON Schema."""

from __future__ import annotations

import inspect
import json
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from job.config import sources
from job.config.settings import Settings, setting_fields

CHART_GROUP = "kubernetes"
"""Name of the group, in the help, of the settings that the chart fills in."""

SET_BY_CHART = frozenset(
    {*(f"run.{name}" for name in ("job_uid", "job_name", "namespace", "node", "image")), "cache.volume_limit_bytes"}
)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file: closed, with a description and the default of each setting."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
    # The only line breaks in it are those of the docstrings.
    unwrapped: dict[str, Any] = json.loads(json.dumps(schema).replace(r"\n", " "))
    return unwrapped


class Row(NamedTuple):
    """The documentation of one setting.

    Attributes:
        name: dotted.
        default: as written in the file.
        variable: its environment variable.
        meaning: one paragraph of Markdown, including the choices if there are any.
    """

    name: str
    default: str
    variable: str
    meaning: str


def rows() -> list[Row]:
    """Return every setting with its documentation, in the order of the models."""
    documented = []
    for name, field in setting_fields().items():
        meaning = " ".join((field.description or "").split())
        if get_origin(field.annotation) is Literal:
            meaning += f" One of: {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."
        documented.append(Row(name, json.dumps(field.default), sources.variable(name), meaning))
    return documented


class Group(NamedTuple):
    """A group of settings.

    Attributes:
        meaning: one sentence.
        rows: its settings.
    """

    meaning: str
    rows: list[Row]


def groups() -> dict[str, Group]:
    """Return the settings by group, those that the chart fills in last."""
    found: dict[str, Group] = {}
    for row in rows():
        name = CHART_GROUP if is_set_by_chart(row.name) else row.name.partition(".")[0]
        if name not in found:
            found[name] = Group(_group_meaning(name), [])
        found[name].rows.append(row)
    return dict(sorted(found.items(), key=lambda item: item[0] == CHART_GROUP))


def is_set_by_chart(name: str) -> bool:
    """Return whether the Helm chart fills a setting in, so that people need not."""
    return name.startswith(("events.", "workers.")) or name in SET_BY_CHART


def _group_meaning(name: str) -> str:
    if name == CHART_GROUP:
        return "Filled in by the Helm chart."
    field = Settings.model_fields[name]
    is_group = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    text = inspect.getdoc(field.annotation) if is_group else field.description
    return " ".join((text or "").split())


def settings_table() -> str:
    """Return the settings as a Markdown table, for docs/settings.md."""
    lines = ["| setting | default | environment variable | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | `{row.default}` | `{row.variable}` | {row.meaning.replace('|', chr(92) + '|')} |"
        for row in rows()
    ]
    return "\n".join(lines) + "\n"
