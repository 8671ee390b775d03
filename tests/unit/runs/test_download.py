"""Copying files of a published run, verified."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from published_runs import FILES, described, publish

from job import storage
from job.errors import DataError
from job.runs.download import download, download_files, download_model, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from job.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a published run."""
    return publish(storage.open_store(str(tmp_path / "run")))


def test_model(store: Store, tmp_path: Path) -> None:
    """The SavedModel and the labels are copied, and nothing else."""
    download_model(store, tmp_path / "copy")

    copied = {
        path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*") if path.is_file()
    }
    assert {"model/labels.txt", "model/saved_model/saved_model.pb"} == copied


def test_named_files(tmp_path: Path) -> None:
    """Files that are named are copied, and no others."""
    run = publish(storage.open_store(str(tmp_path / "run")), FILES | {"model/model.keras": b"zip"})

    download_files(run, ("model/labels.txt", "model/model.keras"), tmp_path / "copy")

    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert {"labels.txt": b"cats\ndogs\n", "model.keras": b"zip"} == copied


def test_run_without_a_named_file(store: Store, tmp_path: Path) -> None:
    """A run that lacks one is refused."""
    with pytest.raises(DataError, match=r"has no model/model.keras"):
        download_files(store, ("model/labels.txt", "model/model.keras"), tmp_path / "copy")


@pytest.mark.parametrize("missing", ["model/labels.txt", "model/saved_model/saved_model.pb"])
def test_run_without_a_model(tmp_path: Path, missing: str) -> None:
    """A run that lacks a part of the model is refused."""
    files = {name: data for name, data in FILES.items() if name != missing}

    with pytest.raises(DataError, match="has no SavedModel"):
        download_model(publish(storage.open_store(str(tmp_path / "run")), files), tmp_path / "copy")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("_SUCCESS", b"", "_SUCCESS is unreadable"),
        ("_SUCCESS", json.dumps({"manifest_sha256": "0" * 64}).encode(), "is not the one that _SUCCESS names"),
        ("manifest.json", b'{"run_id"', "is not the one that _SUCCESS names"),
        ("manifest.json", None, "has no manifest.json"),
    ],
)
def test_manifest_that_is_not_as_published(store: Store, name: str, data: bytes | None, said: str) -> None:
    """Nothing is loaded by a manifest that _SUCCESS does not name."""
    if data is None:
        store.delete(name)
    else:
        store.write(name, data)

    with pytest.raises(DataError, match=said) as raised:
        read_manifest(store)

    assert "finetune verify" in raised.value.remedy


def test_download(store: Store, tmp_path: Path) -> None:
    """The files are in the folder under their names, byte for byte."""
    files = {name: data for name, data in FILES.items() if name.startswith("model/")}
    download(store, {name: described(data) for name, data in files.items()}, tmp_path / "copy")

    copied = {path.relative_to(tmp_path / "copy").as_posix(): path for path in (tmp_path / "copy").rglob("*.*")}
    assert files == {name: path.read_bytes() for name, path in copied.items() if path.is_file()}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a//x", "", "..", "a/..", "a/.", "a\0b", "a\nb", "é"])
def test_names_that_lead_out(store: Store, tmp_path: Path, name: str) -> None:
    """A name of the store becomes a local path only if it is a plain one; nothing is written otherwise."""
    with pytest.raises(DataError, match="no path below the run"):
        download(store, {name: described(b"")}, tmp_path / "copy")

    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [
        ("model/labels.txt", b"cats\nfish\n", "its crc32c is"),
        ("model/labels.txt", b"cats", "its size is 10, and manifest.json has 4"),
        ("model/gone", b"", "is missing"),
    ],
)
def test_download_of_what_differs(store: Store, tmp_path: Path, name: str, expected: bytes, said: str) -> None:
    """A file that is not as manifest.json says ends the download."""
    with pytest.raises(DataError, match=said) as raised:
        download(store, {name: described(expected)}, tmp_path / "copy")

    assert f"finetune verify {store.uri}" in raised.value.remedy
