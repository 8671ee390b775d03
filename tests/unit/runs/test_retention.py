"""Which runs may be deleted."""

from __future__ import annotations

import datetime as dt
import os
from typing import TYPE_CHECKING, Any

import pytest
from listed_runs import NOW, begin, claim, point_to, publish

from job import storage
from job.errors import DataError
from job.observability.progress import Progress
from job.runs.inventory import read_inventory
from job.runs.retention import Rule, Selection, select

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output with five published runs, the third of which is the latest."""
    store = storage.open_store(str(tmp_path / "out"))
    for number in range(5):
        publish(store, f"run-{number}", days=number * 10 + 1)
    point_to(store, "run-2")
    return store


def run_rule(output: Store, **rule: Any) -> Selection:
    """Return what a rule selects."""
    if "days" in rule:
        rule["older_than"] = dt.timedelta(days=rule.pop("days"))
    inventory = read_inventory(output, Progress(), now=NOW)
    return select(output, inventory, Rule(**rule), Progress(), takeover=180, now=NOW)


def candidates(selection: Selection) -> list[str]:
    """Return the IDs, in their order."""
    return [candidate.run.run_id for candidate in selection.candidates]


def set_age(output: Store, run_id: str, days: float) -> None:
    """Make the files of a run as old as if they had been written before `NOW`."""
    for name in output.entries(f"runs/{run_id}"):
        seconds = (NOW - dt.timedelta(days=days)).timestamp()
        os.utime(output.uri_of(name), (seconds, seconds))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"keep": 1}, ["run-4", "run-3", "run-1"]),
        ({"keep": 4}, ["run-4"]),
        ({"keep": 9}, []),
        ({"days": 20}, ["run-4", "run-3"]),
        ({"days": 0}, ["run-4", "run-3", "run-1"]),
        ({"keep": 1, "days": 35}, ["run-4"]),
        ({"keep": 5, "days": 1}, []),
    ],
)
def test_rules(output: Store, rule: dict[str, Any], expected: list[str]) -> None:
    """Both conditions must hold; the newest run and the latest one are kept by every rule."""
    found = run_rule(output, **rule)

    assert expected == candidates(found)
    assert {"run-0": "it is the newest published run", "run-2": "latest.json names it"}.items() <= found.kept.items()
    assert 5 == len(found.candidates) + len(found.kept)


def test_bytes(output: Store) -> None:
    """A candidate has the size of all its objects, also of those that manifest.json does not list."""
    output.write("runs/run-4/extra", b"x" * 1000)

    [found] = run_rule(output, keep=4).candidates

    assert sum(info.size for info in output.list("runs/run-4")) == found.bytes == found.document()["bytes"]


def test_unreadable_latest(output: Store) -> None:
    """Where latest.json is unreadable nothing is selected: exit code 3."""
    output.write("latest.json", b"{")

    with pytest.raises(DataError, match=r"latest\.json is unreadable"):
        run_rule(output, keep=1)


@pytest.mark.parametrize(
    ("name", "data"), [("_SUCCESS", b"{"), ("checkpoints/index.json", b"{"), ("manifest.json", b"{}")]
)
def test_unreadable_runs(output: Store, name: str, data: bytes) -> None:
    """A run with an unreadable document is kept, with the reason."""
    publish(output, "run-4", days=41, with_overview=name != "manifest.json")
    output.write(f"runs/run-4/{name}", data)

    found = run_rule(output, keep=4)

    assert [] == candidates(found)
    assert name in found.kept["run-4"]


@pytest.mark.parametrize(
    ("seconds", "released", "expected"),
    [(10, False, []), (3000, False, []), (4000, False, ["run-4"]), (10, True, ["run-4"])],
)
def test_claims(output: Store, seconds: float, released: bool, expected: list[str]) -> None:
    """A run whose claim was renewed within the hour is under way, and kept."""
    claim(output, "run-4", days=seconds / 86400, released=released)

    assert expected == candidates(run_rule(output, keep=4))


def test_claim_without_a_time(output: Store) -> None:
    """A claim whose age is unknown counts as held."""
    process = '{"host": "a", "pid": 1}'
    data = f'{{"claim": {{"owner": "", "released": false, "process": {process}}}}}'
    output.write("runs/run-4/checkpoints/index.json", data.encode())

    assert [] == candidates(run_rule(output, keep=4))


def test_long_takeover(output: Store) -> None:
    """Where claims expire later than within an hour, the setting counts."""
    claim(output, "run-4", days=0.1)
    inventory = read_inventory(output, Progress(), now=NOW)

    found = select(output, inventory, Rule(keep=4), Progress(), takeover=86400, now=NOW)

    assert {"run-4": "it is under way"}.items() <= found.kept.items()


@pytest.mark.parametrize(
    ("state", "days", "rule", "expected"),
    [
        ("failed", 30, {"days": 20}, False),
        ("failed", 30, {"days": 20, "unfinished": True}, True),
        ("failed", 10, {"days": 20, "unfinished": True}, False),
        ("running", 30, {"days": 20, "unfinished": True}, True),  # killed
        ("running", 0, {"days": 0, "unfinished": True}, False),
        ("stopped", 30, {"keep": 1}, False),
    ],
)
def test_unfinished_runs(output: Store, state: str, days: float, rule: dict[str, Any], expected: bool) -> None:
    """Unfinished runs are selected only where that is asked for, by the age of their last change."""
    begin(output, "new", state, days=days)
    set_age(output, "new", days)

    assert expected == ("new" in candidates(run_rule(output, **rule)))


def test_an_unfinished_run_that_changed(output: Store) -> None:
    """The last change of a run is that of its documents, not only of its status.json."""
    begin(output, "new", "stopped", days=30)
    set_age(output, "new", 1)

    assert "it is too young" == run_rule(output, days=20, unfinished=True).kept["new"]


def test_an_interrupted_deletion(output: Store) -> None:
    """What an interrupted deletion has left is selected by every rule, once its claim has expired."""
    claim(output, "half", days=1, pruning=True)
    output.write("runs/half/model/labels.txt", b"x")

    assert "half" in candidates(run_rule(output, keep=5))
