"""`finetune schema`: the JSON Schema of the settings file."""

from __future__ import annotations

import json

import pytest

from job.commands import schema
from job.config import reference
from job.errors import SettingsError
from job.observability.progress import Progress


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """The schema is printed as JSON, and nothing beside it."""
    assert 0 == schema.parse([]).execute(Progress())
    assert reference.json_schema() == json.loads(capsys.readouterr().out)


def test_schema_takes_no_arguments() -> None:
    """An argument that would have no effect is rejected."""
    with pytest.raises(SettingsError, match=r"takes no arguments, got '--run\.seed', '3'"):
        schema.parse(["--run.seed", "3"])
