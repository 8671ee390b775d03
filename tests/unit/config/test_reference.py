"""What is generated from the settings: the table of the settings and the JSON Schema leave none out."""

from __future__ import annotations

import json

from setting_values import VALUES

from job.config import reference


def test_values_cover_every_setting() -> None:
    """The strategies leave no setting out."""
    assert list(VALUES) == [row.name for row in reference.rows()]


def test_json_schema() -> None:
    """Every object of the schema is closed, and every setting has a description, its default and its choices."""
    schema = reference.json_schema()

    for group in [schema, *schema["$defs"].values()]:
        assert group["additionalProperties"] is False
    for row in reference.rows():
        group, _, last = row.name.rpartition(".")
        definition = schema["properties"][group]["$ref"] if group else ""
        setting = (schema["$defs"][definition.removeprefix("#/$defs/")] if group else schema)["properties"][last]
        assert "\n" not in setting["description"]
        assert json.loads(row.default) == setting["default"]
    assert ["best", "last"] == schema["properties"]["keep"]["enum"]


def test_settings_table() -> None:
    """The table has a row for every setting, with its default, its variable and its choices."""
    lines = reference.settings_table().splitlines()

    assert len(VALUES) == len(lines) - 2
    assert lines[2].startswith('| `preset` | `"none"` | `FINETUNE__PRESET` | A named set of settings')
    assert lines[3].startswith('| `input.uri` | `""` | `FINETUNE_INPUT__URI` | Labelled images: ')
    assert all(line.count(" | ") == 3 and len(line.rpartition(" | ")[2]) > 10 for line in lines[2:])
    assert "One of: `best`, `last`." in reference.settings_table()
