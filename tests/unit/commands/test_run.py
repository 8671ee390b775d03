"""`finetune run`: what it needs before it starts."""

from __future__ import annotations

import pytest

from job.commands import run
from job.errors import SettingsError


def test_run_needs_an_output() -> None:
    """A run without an output is rejected."""
    with pytest.raises(SettingsError, match=r"output\.uri: must be given"):
        run.parse([])


def test_log_settings() -> None:
    """The log is configured as the run's settings say."""
    log = run.parse(["--output.uri", "/out", "--log.level=warning", "--log.format=json"]).log

    assert ("warning", "json") == (log.level, log.format)
