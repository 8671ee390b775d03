"""`finetune summary`: what it needs before it builds the model."""

from __future__ import annotations

import pytest

from job.commands import summary
from job.errors import SettingsError


def test_summary_needs_no_places() -> None:
    """The summary of the model needs neither input nor output; its log is configured by the settings."""
    assert "error" == summary.parse(["--log.level=error"]).log.level


def test_mistakes() -> None:
    """Invalid settings are reported before anything is built."""
    with pytest.raises(SettingsError, match=r"did you mean model\.alpha"):
        summary.parse(["--model.alhpa=0.35"])
