"""Reference generated from the settings: the README's table, the rows of the help, the JSON Schema."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple, get_args, get_origin

from job.config import sources
from job.config.settings import Settings, setting_fields


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


def settings_table() -> str:
    """Return the settings as a Markdown table, for the README."""
    lines = ["| setting | default | environment variable | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | `{row.default}` | `{row.variable}` | {row.meaning.replace('|', chr(92) + '|')} |"
        for row in rows()
    ]
    return "\n".join(lines) + "\n"
