"""Verification of a published run: the chain from _SUCCESS to every file."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import listed_runs
import pytest
from published_runs import FILES, described, publish

from job import storage
from job.errors import DataError
from job.observability.progress import Progress
from job.runs.verification import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def check(folder: Path) -> Verification:
    """Verify the run in a folder."""
    return verify(storage.open_store(str(folder)), Progress())


def run_in(folder: Path, **options: bool) -> Path:
    """Publish a run into a folder."""
    publish(storage.open_store(str(folder)), **options)
    return folder


def test_intact(tmp_path: Path) -> None:
    """A run as it was published: every file is counted, and nothing differs."""
    found = check(run_in(tmp_path))

    found.check()
    document = found.document()
    assert {**document, "verified": True, "differences": [], "unlisted": [], "provenance": True} == document
    assert (len(FILES) + 1, "r") == (document["files"], document["run_id"])


def test_run_without_provenance(tmp_path: Path) -> None:
    """A run of a version that wrote none is verified without it."""
    found = check(run_in(tmp_path, provenance=False))

    assert (False, []) == (found.provenance, found.differences)


def test_unlisted_files(tmp_path: Path) -> None:
    """Files that were added are reported, and are no failure; those that a run itself writes later are none."""
    (run_in(tmp_path) / "notes.txt").write_text("mine")
    (tmp_path / "status.json").write_text("{}")

    found = check(tmp_path)

    found.check()
    assert ["notes.txt"] == found.unlisted


def same_size(folder: Path) -> None:
    """Change one byte."""
    path = folder / "model/saved_model/saved_model.pb"
    path.write_bytes(b"G" + path.read_bytes()[1:])


def longer(folder: Path) -> None:
    """Append a byte."""
    with (folder / "model/labels.txt").open("ab") as file:
        file.write(b"x")


def renamed(folder: Path) -> None:
    """Give a file another name."""
    (folder / "model/labels.txt").rename(folder / "model/names.txt")


def truncated_manifest(folder: Path) -> None:
    """Cut manifest.json off."""
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:50])


def other_manifest(folder: Path) -> None:
    """Replace manifest.json by another valid one."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"published_at": "2027-01-01T00:00:00Z"}))


def bad_entry(folder: Path) -> None:
    """Damage the entry of a file in manifest.json."""
    document = json.loads((folder / "manifest.json").read_bytes())
    document["files"]["config.json"]["sha256"] = "x"
    (folder / "manifest.json").write_text(json.dumps(document))


def no_manifest(folder: Path) -> None:
    """Delete manifest.json."""
    (folder / "manifest.json").unlink()


def empty_success(folder: Path) -> None:
    """Empty _SUCCESS."""
    (folder / "_SUCCESS").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "name", "detail"),
    [
        (same_size, "model/saved_model/saved_model.pb", "crc32c"),
        (longer, "model/labels.txt", "size"),
        (renamed, "model/labels.txt", "missing"),
        (truncated_manifest, "manifest.json", "unreadable"),
        (other_manifest, "manifest.json", "_SUCCESS"),
        (bad_entry, "manifest.json", "files.config.json.sha256"),
        (no_manifest, "manifest.json", "missing"),
        (empty_success, "_SUCCESS", "empty"),
    ],
)
def test_damage(tmp_path: Path, damage: Callable[[Path], None], name: str, detail: str) -> None:
    """What was changed after the publication is named first, with what differs."""
    damage(run_in(tmp_path))

    found = check(tmp_path)

    assert name == found.differences[0].name
    assert detail in found.differences[0].detail
    with pytest.raises(DataError, match=name) as raised:
        found.check()
    assert 3 == raised.value.exit_code


def test_all_differences_are_counted(tmp_path: Path) -> None:
    """Every file that differs is listed, and the error has their number."""
    same_size(run_in(tmp_path))
    longer(tmp_path)

    found = check(tmp_path)

    assert ["model/labels.txt", "model/saved_model/saved_model.pb"] == [one.name for one in found.differences]
    with pytest.raises(DataError, match=r"2 files are not as published; the first: model/labels\.txt"):
        found.check()


def forged(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change provenance.json, and publish the result with checksums that agree."""
    run_in(folder)
    document = json.loads((folder / "provenance.json").read_bytes())
    change(document)
    data = json.dumps(document).encode()
    (folder / "provenance.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["provenance.json"] = described(data).document()
    encoded = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(encoded)
    (folder / "_SUCCESS").write_text(json.dumps({"manifest_sha256": hashlib.sha256(encoded).hexdigest()}))


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda document: document["subject"].pop(), "model/saved_model/saved_model.pb"),
        (lambda document: document["subject"].append({"name": "x", "digest": {"sha256": "0"}}), "its subject x"),
        (lambda document: document.pop("subject"), "no in-toto Statement"),
        (lambda document: document.update(predicateType="https://example.com"), "expected SLSA provenance v1"),
    ],
)
def test_provenance_of_another_run(tmp_path: Path, change: Callable[[dict[str, object]], object], detail: str) -> None:
    """The subjects of provenance.json are the files of manifest.json, with the same checksums."""
    forged(tmp_path, change)

    [difference] = check(tmp_path).differences

    assert "provenance.json" == difference.name
    assert detail in difference.detail


def test_overview_that_differs(tmp_path: Path) -> None:
    """An overview in _SUCCESS that is not that of manifest.json is a difference: lists show it."""
    output = storage.open_store(str(tmp_path))
    listed_runs.publish(output, "a", accuracy=0.8)
    assert check(tmp_path / "runs/a").document()["verified"]
    success = json.loads((tmp_path / "runs/a/_SUCCESS").read_text())
    success["overview"]["accuracy"] = 0.9
    (tmp_path / "runs/a/_SUCCESS").write_text(json.dumps(success))

    [found] = check(tmp_path / "runs/a").differences

    assert ("_SUCCESS", True, True) == (found.name, "0.9" in found.detail, "0.8" in found.detail)
