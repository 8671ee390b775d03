"""What is generated from the settings: their table, their rows in the help, and their JSON Schema."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple, get_args, get_origin

from job.config import sources
from job.config.settings import Settings, setting_fields


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file: closed, with a description and the default of each setting."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
    # The line breaks of the docstrings above are the only ones in it.
    unwrapped: dict[str, Any] = json.loads(json.dumps(schema).replace(r"\n", " "))
    return unwrapped


class Row(NamedTuple):
    """One setting, as documentation shows it.

    Attributes:
        name: dotted.
        default: as one would write it in the file.
        variable: its environment variable.
        meaning: one paragraph of Markdown, with the choices where there are any.
    """

    name: str
    default: str
    variable: str
    meaning: str


def rows() -> list[Row]:
    """Return every setting with its documentation, in the order of the models."""
    found = []
    for name, field in setting_fields().items():
        meaning = " ".join((field.description or "").split())
        if get_origin(field.annotation) is Literal:
            meaning += f" One of: {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."
        found.append(Row(name, json.dumps(field.default), sources.variable(name), meaning))
    return found


def settings_table() -> str:
    """Return the settings as a Markdown table, as the README holds it."""
    lines = ["| setting | default | environment variable | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{row.name}` | `{row.default}` | `{row.variable}` | {row.meaning.replace('|', chr(92) + '|')} |"
        for row in rows()
    ]
    return "\n".join(lines) + "\n"
