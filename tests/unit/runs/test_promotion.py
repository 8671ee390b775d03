"""Promotion of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from listed_runs import names, point_to, publish

from job import storage
from job.errors import DataError, StoppedError
from job.observability.progress import Progress
from job.runs import promotion
from job.runs.named_run import NamedRun, find_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output whose latest run is the second of two."""
    store = storage.open_store(str(tmp_path / "out"))
    publish(store, "first", days=9, passed=False)
    publish(store, "second", days=1)
    point_to(store, "second")
    return store


def latest(output: Store) -> Any:
    """Return latest.json."""
    found = output.read("latest.json")
    return json.loads(found[0]) if found else None


def promote(output: Store, run_id: str = "first", **options: Any) -> None:
    """Promote a run."""
    run = find_run(run_id, storage.open_store, output.uri)
    promotion.promote(
        NamedRun(output, run.run_id, run.store), Progress(), **{"by": "alice", "why": "rollback"} | options
    )


def test_rollback(output: Store) -> None:
    """latest.json names the run, with its gate, and who promoted it, when and why."""
    promote(output)

    found = latest(output)
    assert ("first", f"{output.uri}/runs/first", False) == tuple(found[key] for key in ("run_id", "run_uri", "pinned"))
    assert ("alice", "rollback") == (found["promoted"]["by"], found["promoted"]["why"])
    assert found["promoted"]["at"].endswith("Z")
    assert (False, 0.9) == (found["gate"]["passed"], found["gate"]["accuracy"])


@pytest.mark.parametrize(("before", "pinned", "after"), [(True, None, True), (True, False, False), (False, True, True)])
def test_pin(output: Store, before: bool, pinned: bool | None, after: bool) -> None:
    """A pin is set, removed, or stays as it is; a promotion moves a pinned latest.json, too."""
    point_to(output, "second", pinned=before)

    promote(output, pinned=pinned)

    assert ("first", after) == (latest(output)["run_id"], latest(output)["pinned"])


@pytest.mark.parametrize("data", [None, b"{"])
def test_no_latest_before(output: Store, data: bytes | None) -> None:
    """A latest.json that is missing or unreadable is written."""
    output.delete("latest.json") if data is None else output.write("latest.json", data)

    promote(output)

    assert ("first", False) == (latest(output)["run_id"], latest(output)["pinned"])


def damage(output: Store) -> None:
    """Change a file of the first run."""
    output.write("runs/first/model/labels.txt", b"cats\nbirds\n")


def withdraw(output: Store) -> None:
    """Make the first run an unfinished one."""
    output.delete("runs/first/_SUCCESS")


@pytest.mark.parametrize(("change", "named"), [(damage, "model/labels.txt"), (withdraw, "_SUCCESS")])
def test_a_run_that_is_not_whole(output: Store, change: Callable[[Store], None], named: str) -> None:
    """A run that is damaged or unfinished is refused with exit code 3, and latest.json stays."""
    change(output)

    with pytest.raises(DataError, match=named):
        promote(output)

    assert "second" == latest(output)["run_id"]


def test_a_copy(output: Store) -> None:
    """A run that was copied to another name is refused: its documents name another run."""
    for name in names(output, "first"):
        output.write(f"runs/copy/{name}", output.read(f"runs/first/{name}")[0])

    with pytest.raises(DataError, match="'first'"):
        promote(output, "copy")


class Meanwhile:
    """A store in which something happens before latest.json is written."""

    def __init__(self, store: Store, happen: Callable[[], object]) -> None:
        self._store = store
        self._happen = happen
        self._happened = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, name: str, data: bytes, **condition: Any) -> storage.ObjectInfo:
        """Write, after what happens once."""
        if not self._happened:
            self._happened = True
            self._happen()
        return self._store.write(name, data, **condition)


def test_moved_meanwhile(output: Store) -> None:
    """A latest.json that another process moves during the verification is left so: exit code 75."""
    publish(output, "third", days=0)
    held = Meanwhile(output, lambda: point_to(output, "third"))

    with pytest.raises(StoppedError, match="third"):
        promote(held)

    assert "third" == latest(output)["run_id"]


@pytest.mark.parametrize("exists", [True, False])
def test_deleted_meanwhile(output: Store, exists: bool) -> None:
    """A run whose _SUCCESS is deleted meanwhile is not promoted: latest.json is as it was."""
    if not exists:
        output.delete("latest.json")
    before = latest(output)
    held = Meanwhile(output, lambda: withdraw(output))

    with pytest.raises(DataError, match="deleted"):
        promote(held)

    assert before == latest(output)


def test_user() -> None:
    """The user of this process is named with the host."""
    user, _, host = promotion.current_user().partition("@")

    assert user
    assert host
