"""Names of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from listed_runs import point_to, publish

from job import storage
from job.errors import DataError, SettingsError
from job.runs.named_run import find_run

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def output(tmp_path: Path) -> Store:
    """Return an output with three runs."""
    store = storage.open_store(str(tmp_path / "out"))
    for run_id in ("flowers-0a", "flowers-0a1", "cats-1"):
        publish(store, run_id)
    point_to(store, "cats-1")
    return store


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flowers-0a", "flowers-0a"),  # a whole ID that another one begins with
        ("flowers-0a1", "flowers-0a1"),
        ("c", "cats-1"),
        ("latest", "cats-1"),
    ],
)
def test_names(output: Store, name: str, expected: str) -> None:
    """A run is named by its URI or by its ID in an output, by a unique beginning, or as the latest one."""
    places = {
        "ID": (name, output.uri),
        "URI": (f"{output.uri}/latest" if name == "latest" else f"{output.uri}/runs/{name}", ""),
        "URI beside an output": (f"{output.uri}/latest" if name == "latest" else f"{output.uri}/runs/{name}", "/other"),
    }
    for given, output_uri in places.values():
        found = find_run(given, storage.open_store, output_uri)
        assert (expected, output.uri) == (found.run_id, found.output.uri)
        assert f"{output.uri}/runs/{expected}" == found.store.uri


def test_ambiguous(output: Store) -> None:
    """A beginning of several IDs is exit code 2, and names them."""
    with pytest.raises(SettingsError, match="flowers-0a, flowers-0a1"):
        find_run("flow", storage.open_store, output.uri)


def test_unknown(output: Store) -> None:
    """An ID that does not exist is exit code 3, with a suggestion."""
    with pytest.raises(DataError, match=r"'cats-2' in .*cats-1"):
        find_run("cats-2", storage.open_store, output.uri)


@pytest.mark.parametrize("name", ["flowers-0a", "/", "/data/flowers-0a", "gs://bucket/flowers-0a"])
def test_no_name(name: str) -> None:
    """An ID without an output, and a place that is no run's, are exit code 2, with the value."""
    with pytest.raises(SettingsError) as caught:
        find_run(name, storage.local.LocalStore)
    assert repr(name) in caught.value.message
    assert "--output.uri" in caught.value.remedy


@pytest.mark.parametrize("latest", [None, b"{", b'{"run_id": "../x", "published_at": ""}'])
def test_no_latest(output: Store, latest: bytes | None) -> None:
    """A latest.json that is missing, unreadable or leads elsewhere is exit code 3."""
    output.delete("latest.json") if latest is None else output.write("latest.json", latest)

    with pytest.raises(DataError, match=r"latest\.json"):
        find_run("latest", storage.open_store, output.uri)
