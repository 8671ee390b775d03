"""`finetune run`: what it starts around the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.commands import run
from job.observability.progress import Listener, Progress

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
