"""`finetune run`: what it starts around the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from job.commands import run
from job.errors import SettingsError
from job.observability.progress import Listener, Progress

if TYPE_CHECKING:
    from pathlib import Path


def test_stall_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without progress ends after as many minutes as are set."""
    limits = []

    def stall_watch(seconds: float, **_: object) -> Listener:
        limits.append(seconds)
        return Listener()

    monkeypatch.setattr(run, "StallWatch", stall_watch)
    monkeypatch.setattr("job.pipeline.run", lambda _loaded, _progress: None)

    code = run.parse(["--output.uri", str(tmp_path), "--device.stall_minutes", "2"]).execute(Progress())

    assert (0, [120.0]) == (code, limits)


def test_run_needs_an_output() -> None:
    """A run without an output is rejected."""
    with pytest.raises(SettingsError, match=r"output\.uri: must be given"):
        run.parse([])


def test_log_settings() -> None:
    """The log is configured as the run's settings say."""
    log = run.parse(["--output.uri", "/out", "--log.level=warning", "--log.format=json"]).log

    assert ("warning", "json") == (log.level, log.format)
