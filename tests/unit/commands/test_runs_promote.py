"""The command `finetune runs promote`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from listed_runs import publish

from job import storage
from job.commands import runs_promote
from job.errors import DataError, SettingsError
from job.observability.progress import Progress
from job.runs.promotion import current_user

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("flags", "pinned", "by", "note"),
    [
        ([], False, current_user(), "the next new run that passes its gate moves it"),
        (["--pin", "--by", "alice"], True, "alice", "later runs leave it there"),
    ],
)
def test_promoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], pinned: bool, by: str, note: str
) -> None:
    """latest.json names the run, and the line what follows."""
    output = storage.open_store(str(tmp_path))
    publish(output, "flowers-1")

    assert 0 == runs_promote.parse(["f", "--why", "because", "--output.uri", output.uri, *flags]).execute(Progress())

    assert f"{output.uri}/latest.json names flowers-1; {note}\n" == capsys.readouterr().out
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert (pinned, by, "because") == (latest["pinned"], latest["promoted"]["by"], latest["promoted"]["why"])


def test_not_whole(tmp_path: Path) -> None:
    """A damaged run is exit code 3, and nothing is written."""
    publish(storage.open_store(str(tmp_path)), "a")
    (tmp_path / "runs/a/model/labels.txt").unlink()

    with pytest.raises(DataError, match=r"labels\.txt"):
        runs_promote.parse([f"{tmp_path}/runs/a", "--why", "x"]).execute(Progress())
    assert not (tmp_path / "latest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "RUN is missing"),
        (["a"], "--why"),
        (["a", "--why"], "--why"),
        (["a", "--why", " "], "--why"),
        (["a", "--why", "x", "--pin", "--unpin"], "--unpin"),
        (["a", "--why", "x", "--pni"], "--pin"),
    ],
)
def test_mistakes(arguments: list[str], named: str) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError) as caught:
        runs_promote.parse(arguments)
    assert named in caught.value.message
