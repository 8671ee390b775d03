"""The command `finetune runs show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from listed_runs import begin, point_to, publish

from job import storage
from job.commands import runs_show
from job.errors import SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Return the folder of an output with a published and an unfinished run."""
    store = storage.open_store(str(tmp_path / "out"))
    publish(store, "flowers-1", "--run.seed", "8")
    begin(store, "birds-1", stage="fine_tuning", epoch=3)
    point_to(store, "flowers-1")
    return store.uri


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Execute the command, and return what it prints."""
    assert 0 == runs_show.parse(arguments).execute(Progress())
    return capsys.readouterr().out


def test_text(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The text has the groups of facts, and of the settings those that differ from their defaults."""
    text = show(capsys, "latest", "--output.uri", output, "--report.gpu_price_per_hour", "3")

    assert text.splitlines()[0] == f"{output}/runs/flowers-1"
    lines = [line.split() for line in text.splitlines()]
    for expected in (["cost", "6"], ["images.train", "479"], ["kept.epoch", "9"], ["run.seed", "8"]):
        assert expected in lines
    assert "model.alpha" not in text


def test_unfinished(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unfinished run has its state and its progress."""
    lines = [line.split() for line in show(capsys, f"{output}/runs/birds").splitlines()]

    assert ["state", "interrupted"] in lines
    assert ["epoch", "3"] in lines


def test_json(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The document has all settings."""
    document = json.loads(show(capsys, f"{output}/latest", "--json"))

    assert 1.0 == document["settings"]["model.alpha"]
    assert "run.seed" in document["changed_settings"]


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--jsno"]])
def test_mistakes(arguments: list[str]) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError):
        runs_show.parse(arguments)
