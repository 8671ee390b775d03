"""What the documents of a run record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from listed_runs import begin, publish

from job import storage
from job.errors import DataError
from job.runs.facts import Facts, read_facts
from job.runs.named_run import NamedRun

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an empty output."""
    return storage.open_store(str(tmp_path / "out"))


def facts(output: Store, run_id: str = "a", price: float | None = None) -> Facts:
    """Return the facts about a run."""
    return read_facts(NamedRun(output, run_id, storage.open_store(output.uri_of(f"runs/{run_id}"))), price)


def test_published(output: Store) -> None:
    """A published run has its data, metrics, checks of the gate and settings."""
    publish(output, "a", "--run.seed", "8", gpu_hours=2)

    found = facts(output, price=3)

    assert ("published", 2.0, 6.0) == tuple(found.run[name] for name in ("state", "gpu_hours", "cost"))
    assert (479, 2) == (found.data["images.train"], found.data["labels"])
    assert {"validation.accuracy", "validation.accuracy_interval", "kept.stage"} <= found.metrics.keys()
    assert not [name for name in found.metrics if name.startswith("test.")]
    assert {"run.seed", "input.uri", "output.uri"} == found.changed
    assert (8, 1.0) == (found.settings["run.seed"], found.settings["model.alpha"])
    assert "cost" not in facts(output).run


def test_unfinished(output: Store) -> None:
    """An unfinished run has its state, what it reported, and its settings."""
    begin(output, "a", "failed", reason="Data", message="no images")

    found = facts(output)

    assert ("failed", "Data", "no images") == tuple(found.run[name] for name in ("state", "reason", "message"))
    assert ({}, "gs://my-bucket/flowers") == (found.metrics, found.data["uri"])


def test_lost_metrics(output: Store) -> None:
    """Without metrics.json and config.json the rest is shown."""
    publish(output, "a")
    for name in ("metrics/metrics.json", "config.json"):
        output.write(f"runs/a/{name}", b"{")

    found = facts(output)

    assert ("published", {}, {}) == (found.run["state"], found.metrics, found.settings)


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [("_SUCCESS", b"{", "_SUCCESS"), ("manifest.json", b"{}", "manifest.json"), (None, b"", "there is no run")],
)
def test_unreadable(output: Store, name: str | None, data: bytes, named: str) -> None:
    """A run that is damaged or does not exist is exit code 3."""
    if name:
        publish(output, "a")
        output.write(f"runs/a/{name}", data)

    with pytest.raises(DataError, match=named):
        facts(output)
