"""Control documents: with any content, a start reads them or ends with an error that names the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from job import errors, storage
from job.runs import documents

if TYPE_CHECKING:
    from pathlib import Path

LATEST = {"run_id": "a", "published_at": "2026-01-01T00:00:00Z"}


def test_read(tmp_path: Path) -> None:
    """A document keeps the fields that a start does not depend on, and has its generation."""
    store = storage.open_store(str(tmp_path))
    written = store.write("latest.json", json.dumps({**LATEST, "note": [1]}).encode())

    found = documents.read(store, "latest.json", documents.Latest, remedy="")

    assert found is not None
    assert written.generation == found[1]
    assert {**LATEST, "pinned": False, "note": [1]} == found[0].document()
    assert documents.read(store, "other.json", documents.Latest, remedy="") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'{"run_id": "a"}', "published_at: Field required"),
        (b'{"run_id": 5, "published_at": ""}', "run_id: Input should be a valid string"),
    ],
)
def test_unreadable(tmp_path: Path, content: bytes, problem: str) -> None:
    """An empty, damaged or foreign document ends with exit code 3, naming the file, the problem and the remedy."""
    store = storage.open_store(str(tmp_path))
    store.write("latest.json", content)

    with pytest.raises(errors.DataError, match=f"{tmp_path}/latest.json is unreadable: .*{problem}") as caught:
        documents.read(store, "latest.json", documents.Latest, remedy="restore it")
    assert (3, "restore it") == (caught.value.exit_code, caught.value.remedy)
