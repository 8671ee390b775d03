"""`finetune run`: what it starts around the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from job.commands import run, summary
from job.errors import SettingsError
from job.observability.progress import Listener, Progress

if TYPE_CHECKING:
    from pathlib import Path

    from job.commands.command import CommandModule


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


@pytest.mark.parametrize("command", [run, summary])
def test_weights_that_do_not_exist(tmp_path: Path, command: CommandModule) -> None:
    """A missing weights file is found before anything is written."""
    flags = ["--output.uri", str(tmp_path / "out"), "--model.weights", str(tmp_path / "w.h5")]

    with pytest.raises(SettingsError, match=rf"model\.weights = '{tmp_path}/w\.h5': there is no such file"):
        command.parse(flags)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [run, summary])
def test_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: CommandModule) -> None:
    """Where TensorFlow is not installed, the message says how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(SettingsError, match="TensorFlow is not installed") as caught:
        command.parse(["--output.uri", str(tmp_path)])
    assert "pip install '.[cpu]'" in caught.value.remedy


def test_log_settings() -> None:
    """The log is configured as the run's settings say."""
    log = run.parse(["--output.uri", "/out", "--log.level=warning", "--log.format=json"]).log

    assert ("warning", "json") == (log.level, log.format)
