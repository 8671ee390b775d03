"""The command `finetune runs prune`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from listed_runs import point_to, publish

from job import storage
from job.commands import runs_prune
from job.errors import SettingsError
from job.observability.progress import Event, Listener, Progress
from job.runs import deletion

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output with three runs, the oldest of which is the latest."""
    store = storage.open_store(str(tmp_path / "out"))
    for number in range(3):
        publish(store, f"run-{number}", days=30 * number)
    point_to(store, "run-2")
    return store


def prune(*arguments: str) -> list[Event]:
    """Execute the command, and return its events."""
    events: list[Event] = []

    class Recorder(Listener):
        def on_event(self, event: Event) -> None:
            events.append(event)

    assert 0 == runs_prune.parse(arguments).execute(Progress([Recorder()]))
    return events


def test_dry(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --delete nothing is written; the table has what would be deleted, its size, and why the rest is kept."""
    before = output.entries("")

    assert [] == prune(output.uri, "--keep", "1")

    assert before == output.entries("")
    _, deleted, newest, latest, total = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"run-1  published  2026-05-31 12:00  \d+(\.\d+)? kB", deleted)
    assert newest.endswith("it is the newest published run")
    assert latest.endswith("latest.json names it")
    assert total.startswith("1 run, ")
    assert total.endswith("would be deleted; --delete does it; 2 runs kept")


def test_deleted(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """With --delete the runs are gone, and each is an event."""
    size = sum(entry.size for entry in output.entries("runs/run-1").values())

    events = prune(output.uri, "--older-than", "1d", "--delete", "--json")

    document = json.loads(capsys.readouterr().out)
    assert (True, size, ["run-1"]) == (
        document["deleted"],
        document["bytes"],
        [run["run_id"] for run in document["runs"]],
    )
    assert {"run-0", "run-2"} == document["kept"].keys()
    assert ["run-0", "run-2"] == output.folders("runs")
    assert [("run.deleted", output.uri_of("runs/run-1"))] == [(event.name, event.facts["run_uri"]) for event in events]


def test_kept_in_the_end(output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was kept when its turn came is listed as kept, with the reason."""

    def keep(*_: object, **__: object) -> None:
        raise deletion.KeptError("it was promoted meanwhile")

    monkeypatch.setattr(deletion, "delete_run", keep)

    prune(output.uri, "--keep", "1", "--delete", "--json")

    document = json.loads(capsys.readouterr().out)
    assert (0, [], "it was promoted meanwhile") == (document["bytes"], document["runs"], document["kept"]["run-1"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "OUTPUT_URI"),
        (["a"], "--keep"),
        (["a", "--keep", "0"], "--keep '0'"),
        (["a", "--older-than", "30"], "--older-than '30'"),
        (["a", "--keep", "1", "--unfinished"], "--older-than"),
        (["a", "--keep", "1", "--delte"], "--delete"),
    ],
)
def test_mistakes(arguments: list[str], named: str) -> None:
    """A mistake in the call is exit code 2."""
    with pytest.raises(SettingsError) as caught:
        runs_prune.parse(arguments)
    assert named in caught.value.message
