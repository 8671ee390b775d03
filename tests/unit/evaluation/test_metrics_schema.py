"""The JSON Schema of metrics.json."""

from __future__ import annotations

import json
from pathlib import Path

from job.evaluation import metrics_schema


def test_schema_is_published() -> None:
    """docs/ holds the schema of the document."""
    path = Path(__file__).parents[3] / "docs/metrics.schema.json"

    assert metrics_schema.schema_text() == path.read_text("utf-8")


def test_every_object_is_described() -> None:
    """Every kind of object has a description, and allows no key that is not named."""
    for name, definition in json.loads(metrics_schema.schema_text())["$defs"].items():
        assert definition["description"], name
        assert definition["additionalProperties"] is False, name
