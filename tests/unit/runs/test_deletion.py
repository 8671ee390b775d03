"""Deletion of a run, and what happens meanwhile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from listed_runs import NOW, begin, claim, names, point_to, publish
from structlog.testing import capture_logs

from job import storage
from job.errors import UnavailableError
from job.observability.progress import Progress
from job.runs import deletion
from job.runs.deletion import KeptError, delete_run
from job.runs.inventory import read_inventory
from job.runs.retention import Candidate, Rule, select

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output with an old run, and a newer one that is the latest."""
    store = storage.open_store(str(tmp_path / "out"))
    publish(store, "old", days=40)
    publish(store, "new", days=1)
    point_to(store, "new")
    return store


def candidate(output: Store, **rule: Any) -> Candidate:
    """Return the only run that a rule selects."""
    inventory = read_inventory(output, Progress(), now=NOW)
    [found] = select(output, inventory, Rule(**{"keep": 1} | rule), Progress(), takeover=180, now=NOW).candidates
    return found


class Spy:
    """A store that records its writes and deletions, and in which something happens before one of them."""

    def __init__(self, store: Store, at: str = "", happen: Callable[[], object] | None = None) -> None:
        self._store = store
        self._at = at
        self._happen = happen
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _record(self, what: str, name: str) -> None:
        call = f"{what} {name.removeprefix('runs/old/')}"
        if call == self._at and self._happen:
            happen, self._happen = self._happen, None
            happen()
        self.done.append(call)

    def read(self, name: str) -> Any:
        """Read and record."""
        self._record("read", name)
        return self._store.read(name)

    def write(self, name: str, data: bytes, **condition: Any) -> storage.ObjectInfo:
        """Write and record."""
        self._record("write", name)
        return self._store.write(name, data, **condition)

    def delete(self, name: str, **condition: Any) -> None:
        """Delete and record."""
        self._record("delete", name)
        self._store.delete(name, **condition)


def delete(spy: Spy, found: Candidate) -> None:
    """Delete a run."""
    delete_run(spy, found, takeover=180)


def test_order(output: Store, tmp_path: Path) -> None:
    """The claim is first, then _SUCCESS, then latest.json is read again; the claim is deleted last, with the folder."""
    spy = Spy(output)

    delete(spy, candidate(output))

    assert [
        "write checkpoints/index.json",
        "read _SUCCESS",
        "delete _SUCCESS",
        "read latest.json",
        "delete manifest.json",
    ] == spy.done[:5]
    assert "delete checkpoints/index.json" == spy.done[-1]
    assert ["new"] == output.folders("runs")
    assert not (tmp_path / "out/runs/old").exists()


def test_promoted_meanwhile(output: Store) -> None:
    """A run that is promoted after it was selected is kept, as it was."""
    before = {name: output.read(f"runs/old/{name}")[0] for name in names(output, "old")}
    found = candidate(output)
    spy = Spy(output, "delete _SUCCESS", lambda: point_to(output, "old"))

    with pytest.raises(KeptError, match=r"latest\.json names it"):
        delete(spy, found)

    assert before == {name: output.read(f"runs/old/{name}")[0] for name in names(output, "old")}


def test_latest_that_becomes_unreadable(output: Store) -> None:
    """Where latest.json cannot be parsed any more, the run is kept."""
    found = candidate(output)
    spy = Spy(output, "read latest.json", lambda: output.write("latest.json", b"{"))

    with pytest.raises(KeptError, match="unreadable"):
        delete(spy, found)

    assert {"_SUCCESS", "manifest.json"} <= {*names(output, "old")}


def fail() -> None:
    """Fail as a store does."""
    raise UnavailableError("no network", remedy="wait")


def test_failure_before_latest_is_read(output: Store) -> None:
    """If latest.json cannot be read again, the run is published as before, and without a claim."""
    found, before = candidate(output), names(output, "old")

    with pytest.raises(UnavailableError):
        delete(Spy(output, "read latest.json", fail), found)

    assert before == names(output, "old")


@pytest.mark.parametrize("at", ["delete manifest.json", "delete model/labels.txt", "delete config.json"])
@pytest.mark.parametrize("error", [fail, KeyboardInterrupt])
def test_interrupted(output: Store, at: str, error: Callable[[], None] | type[BaseException]) -> None:
    """An interrupted deletion leaves nothing that looks published, and the next one deletes the rest."""

    def happen() -> None:
        if isinstance(error, type):
            raise error
        error()

    with pytest.raises((UnavailableError, KeyboardInterrupt)):
        delete(Spy(output, at, happen), candidate(output))

    assert "_SUCCESS" not in names(output, "old")
    assert ["incomplete"] == [run.state for run in read_inventory(output, Progress()).runs if run.run_id == "old"]
    index = json.loads(output.read("runs/old/checkpoints/index.json")[0])
    assert (True, True) == (index["pruning"], index["claim"]["released"])

    delete_run(output, candidate(output, keep=9), takeover=180)
    assert ["new"] == output.folders("runs")


def test_started_meanwhile(output: Store) -> None:
    """A run that a process has claimed since it was selected is kept; the claim is that process's."""
    begin(output, "old", "stopped", days=40)
    output.delete("runs/old/_SUCCESS")
    output.delete("runs/old/manifest.json")
    claim(output, "old", days=40, released=True, pruning=True)
    found = candidate(output)
    mine = claim(output, "old")

    with pytest.raises(KeptError, match="a process works on it"):
        delete(Spy(output), found)

    assert mine == output.read("runs/old/checkpoints/index.json")[0]
    assert "config.json" in names(output, "old")


def test_published_meanwhile(output: Store) -> None:
    """A run that is published after it was selected as unfinished is kept, and so is the commit of its publication."""
    success = output.read("runs/old/_SUCCESS")[0]
    output.delete("runs/old/_SUCCESS")
    index = claim(output, "old", days=40, released=True, pruning=True, manifest_sha256="0" * 64)
    found = candidate(output)
    spy = Spy(output, "read _SUCCESS", lambda: output.write("runs/old/_SUCCESS", success))

    with pytest.raises(KeptError, match="published"):
        delete(spy, found)

    assert success == output.read("runs/old/_SUCCESS")[0]
    assert index == output.read("runs/old/checkpoints/index.json")[0]


def test_an_object_that_is_written_meanwhile(output: Store) -> None:
    """An object that was written since the run was selected is left, and logged."""
    found = candidate(output)
    output.write("runs/old/config.json", b"{}")

    with capture_logs() as events:
        delete(Spy(output), found)

    assert ["config.json"] == names(output, "old")
    assert ["prune.object_left"] == [event["event"] for event in events]


def test_lost_claim(output: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion that lost its claim while it hung stops, and leaves the claim of the other process."""
    monkeypatch.setattr(deletion, "BATCH", 1)
    found = candidate(output)
    taken: list[bytes] = []
    spy = Spy(output, "delete config.json", lambda: taken.append(claim(output, "old")))

    with pytest.raises(KeptError, match="taken over"):
        delete_run(spy, found, takeover=0)

    assert taken == [output.read("runs/old/checkpoints/index.json")[0]]
    assert "model/labels.txt" in names(output, "old")
