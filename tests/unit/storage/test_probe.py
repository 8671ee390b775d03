"""What a run does with its stores, tried with one object: on a disk, whole and damaged."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from job import storage
from job.errors import AccessError, DataError, SettingsError, UnavailableError
from job.storage import ObjectInfo, PreconditionFailed, probe
from job.storage.local import LocalStore
from job.storage.probe import OutputProbe, read_input

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


def probe_of(store: Store) -> OutputProbe:
    """Return a probe of a store."""
    return OutputProbe(lambda: store)


def test_all_operations(tmp_path: Path) -> None:
    """Each operation is tried, and nothing is left: neither the object nor the folders that were created for it."""
    tried = probe_of(LocalStore(str(tmp_path / "a/b")))

    said = [tried.create(), tried.refuse(), tried.overwrite(), tried.read()]
    assert tried.created
    assert [tmp_path / "a/b" / tried.name] == list((tmp_path / "a/b").iterdir())
    said.append(tried.delete())

    assert said[0].startswith(f"{tmp_path}/a/b: created .finetune-doctor-")
    assert ["a second creation is refused", "overwritten at its generation", "read back, 29 bytes", "deleted"] == said[
        1:
    ]
    assert not tried.created
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    """An empty output folder is not removed."""
    tried = probe_of(LocalStore(str(tmp_path / "out")))
    (tmp_path / "out").mkdir()

    tried.create()
    tried.clean_up()

    assert [tmp_path / "out"] == list(tmp_path.iterdir())
    assert [] == list((tmp_path / "out").iterdir())


class NoConditions(LocalStore):
    """A store that ignores preconditions."""

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:  # noqa: ARG002
        """Write in any case."""
        return super().write(name, data)


class Forgetful(LocalStore):
    """A store that refuses the generation that it reported."""

    def write(self, name: str, data: bytes | Path, *, if_generation_match: int | None = None) -> ObjectInfo:
        """Only create."""
        if if_generation_match:
            raise PreconditionFailed(name)
        return super().write(name, data, if_generation_match=if_generation_match)


class Undeletable(LocalStore):
    """A store whose objects cannot be deleted."""

    def delete(self, name: str) -> None:
        """Refuse it."""
        raise AccessError(f"no storage.objects.delete on {name}", remedy="grant it")


def test_ignored_preconditions(tmp_path: Path) -> None:
    """A store that creates an object twice cannot keep two runs apart; the object is deleted all the same."""
    tried = probe_of(NoConditions(str(tmp_path)))
    tried.create()

    with pytest.raises(SettingsError, match="ignores if_generation_match"):
        tried.refuse()

    tried.overwrite()
    tried.delete()
    assert [] == list(tmp_path.iterdir())


def test_a_generation_that_is_refused(tmp_path: Path) -> None:
    """What cannot be overwritten is read as it was created."""
    tried = probe_of(Forgetful(str(tmp_path)))
    tried.create()

    with pytest.raises(SettingsError, match="at the generation that it reported"):
        tried.overwrite()

    assert "read back, 16 bytes" == tried.read()


@pytest.mark.parametrize("content", [b"other", None])
def test_other_bytes(tmp_path: Path, content: bytes | None) -> None:
    """Something that answers in the store's place is noticed."""
    tried = probe_of(LocalStore(str(tmp_path)))
    tried.create()
    path = tmp_path / tried.name
    if content:
        path.write_bytes(content)
    else:
        path.unlink()

    with pytest.raises(UnavailableError, match="has other bytes" if content else "is not found"):
        tried.read()


def test_no_permission_to_delete(tmp_path: Path) -> None:
    """The message names the object that is left, and a second try is not made."""
    tried = probe_of(Undeletable(str(tmp_path)))
    tried.create()

    with pytest.raises(AccessError, match=f"{tmp_path}/{tried.name} is left"):
        tried.delete()

    with capture_logs() as logs:
        tried.clean_up()
    assert [] == logs


def test_what_may_be_left_is_logged(tmp_path: Path) -> None:
    """If an interrupted check cannot clean up, the log has the object's URI."""
    tried = probe_of(Undeletable(str(tmp_path)))
    tried.create()

    with capture_logs() as logs:
        tried.clean_up()

    assert [("doctor.object_may_be_left", f"{tmp_path}/{tried.name}")] == [(log["event"], log["uri"]) for log in logs]


def test_nothing_was_created(tmp_path: Path) -> None:
    """Where the creation is refused there is nothing to clean up."""
    (tmp_path / "file").touch()
    tried = probe_of(LocalStore(str(tmp_path / "file/out")))

    with capture_logs() as logs, pytest.raises(SettingsError):
        tried.create()
    tried.clean_up()

    assert not tried.created
    assert [] == logs


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_clock_skew(tmp_path: Path, hours: int) -> None:
    """The store's clock, by the time of the last write, is compared with this machine's."""
    tried = probe_of(LocalStore(str(tmp_path)))
    tried.create()
    moment = time.time() + 3600 * hours
    os.utime(tmp_path / tried.name, (moment, moment))

    assert 3600 * hours == pytest.approx(tried.clock_skew(), abs=60)


def test_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not report the time of a write has no clock to compare with."""
    tried = probe_of(LocalStore(str(tmp_path)))
    tried.create()
    monkeypatch.setattr(LocalStore, "updated", lambda *_: None)

    assert tried.clock_skew() is None


def test_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first object of a folder is read, a large one and a manifest are looked up, and nothing is written."""
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/1.jpg").write_bytes(b"1")
    (tmp_path / "rows.csv").write_bytes(b"22")

    assert f"{tmp_path}: listed, {tmp_path}/cats/1.jpg read" == read_input(str(tmp_path), storage.open_store)
    assert f"{tmp_path}/rows.csv: found, 2 bytes" == read_input(f"{tmp_path}/rows.csv", storage.open_store)
    monkeypatch.setattr(probe, "READ_BYTES", 0)
    assert "has 1 bytes and was not read" in read_input(str(tmp_path / "cats"), storage.open_store)
    assert {"cats", "rows.csv"} == {path.name for path in tmp_path.iterdir()}


def test_a_manifest_without_a_known_name(tmp_path: Path) -> None:
    """A file is an input whatever it is called."""
    (tmp_path / "rows").write_bytes(b"22")

    assert f"{tmp_path}/rows: found, 2 bytes" == read_input(f"{tmp_path}/rows", storage.open_store)


def test_an_empty_input(tmp_path: Path) -> None:
    """Nothing to train on is a mistake in the data."""
    for uri in (tmp_path, tmp_path / "none", tmp_path / "none.csv"):
        with pytest.raises(DataError, match=f"there is nothing in {uri}"):
            read_input(str(uri), storage.open_store)
