"""Reading the files of a run in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from published_runs import FILES, described, publish

from job import storage
from job.errors import UnavailableError
from job.runs.checksums import TRIES, difference, measure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from job.storage import ObjectInfo, Store


class Corrupting:
    """A store whose bytes arrive corrupted a number of times."""

    def __init__(self, store: Store, times: int) -> None:
        self._store = store
        self._times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read_chunks(self, info: ObjectInfo) -> Iterator[bytes]:
        """Yield the chunks."""
        self._times -= 1
        for chunk in self._store.read_chunks(info):
            yield chunk[::-1] if self._times >= 0 else chunk


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a published run."""
    return publish(storage.open_store(str(tmp_path / "run")))


def test_measured_as_written(store: Store, tmp_path: Path) -> None:
    """Size and checksums are those of the bytes, which are written to the sink."""
    data = FILES["model/labels.txt"]
    with (tmp_path / "sink").open("w+b") as sink:
        assert described(data) == measure(store, store.stat("model/labels.txt"), sink)

    assert data == (tmp_path / "sink").read_bytes()


def test_corrupted_on_the_way(store: Store, tmp_path: Path) -> None:
    """What arrives corrupted is read again; the sink has the last try alone."""
    data, info = FILES["model/labels.txt"], store.stat("model/labels.txt")
    with (tmp_path / "sink").open("w+b") as sink:
        assert described(data) == measure(Corrupting(store, TRIES - 1), info, sink)

    assert data == (tmp_path / "sink").read_bytes()
    with pytest.raises(UnavailableError, match=f"corrupted in all {TRIES}"):
        measure(Corrupting(store, TRIES), info)


def test_difference() -> None:
    """The first property that differs is named: also a sha256 under the same crc32c."""
    one = described(b"1")

    assert difference(one, one) is None
    assert "its sha256" in str(difference(one, one.model_copy(update={"sha256": "0" * 64})))
