"""A run's prefix: what is written is recorded, and another run is never overwritten."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
from opened_runs import checkpoints_of, open_run, pinned_run

from job import errors, storage
from job.config.load import Loaded, load_settings
from job.data.manifest import ManifestBuilder
from job.runs.data import Data
from job.runs.documents import encode
from job.runs.identity import Identity, identify

if TYPE_CHECKING:
    from pathlib import Path

    from job.runs.run import Run


def opened(folder: Path, *flags: str, data: str = "da7a") -> Run:
    """Open the run of these flags and data below a folder."""
    loaded = load(*flags)
    return open_run(storage.open_store(str(folder)), loaded, identity(loaded, data))


def load(*flags: str) -> Loaded:
    """Load these flags."""
    return load_settings(flags, {})


def identity(loaded: Loaded, data: str) -> Identity:
    """Return the identity of these settings and data."""
    return Identity(recipe=1, data=data, settings=identify(loaded.settings, storage.open_store).settings)


def test_same_work_is_the_same_run(tmp_path: Path) -> None:
    """The same settings and data are the same run; different data are a different run."""
    run = opened(tmp_path)

    assert run.id == opened(tmp_path, "--log.level=debug").id
    assert run.id != opened(tmp_path, data="0ther").id
    assert f"{tmp_path}/runs/{run.id}" == run.uri
    config = json.loads((tmp_path / run.prefix / "config.json").read_text())
    assert identity(load(), "da7a").document() == config["identity"]


def test_id_that_is_taken(tmp_path: Path) -> None:
    """A run.id of a run with other settings is rejected, naming the difference."""
    opened(tmp_path, "--run.id=mine")

    with pytest.raises(errors.SettingsError, match=r"run.id 'mine' is taken .*run.seed is 8, and was"):
        opened(tmp_path, "--run.id=mine", "--run.seed=8")


def test_settings_of_a_job_that_change(tmp_path: Path) -> None:
    """A Job keeps to the settings of its first Pod."""
    run = opened(tmp_path, "--run.job_uid=job")

    with pytest.raises(errors.SettingsError, match=r"changed since this Job began its run .*run.seed is 8, and was 7"):
        checkpoints_of(run, load("--run.job_uid=job", "--run.seed=8").settings)


def test_pinned_run(tmp_path: Path) -> None:
    """A later Pod finds the Job's run without the data once it has begun; not under another run.id."""
    store, settings = storage.open_store(str(tmp_path)), load("--run.job_uid=job").settings
    assert pinned_run(store, settings) is None
    run = opened(tmp_path, "--run.job_uid=job")
    assert pinned_run(store, settings) is None
    with checkpoints_of(run, settings) as checkpoints:
        checkpoints.save_data(Data(listed=ManifestBuilder().build(), quarantined=[]))

    found = pinned_run(store, settings)

    assert found is not None
    assert run.id == found.id
    with pytest.raises(errors.SettingsError, match=r"run.id is 'other', and this Job works on"):
        pinned_run(store, load("--run.job_uid=job", "--run.id=other").settings)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"identity": {"recipe": 1}}'])
def test_unreadable_config(tmp_path: Path, content: bytes) -> None:
    """A config.json that is empty or foreign ends with exit code 3, naming the file and what to do."""
    run = opened(tmp_path)
    (tmp_path / run.prefix / "config.json").write_bytes(content)

    for open_again in (lambda: opened(tmp_path), lambda: checkpoints_of(run, load().settings)):
        with pytest.raises(errors.DataError, match=rf"{run.uri}/config.json is unreadable: ") as caught:
            open_again()
        assert "restore it from a copy" in caught.value.remedy


def test_files_are_recorded(tmp_path: Path) -> None:
    """Every file that is written is recorded with its checksums, status.json excepted: it changes."""
    run = opened(tmp_path / "out")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w")
    with checkpoints_of(run, load().settings):
        run.write("a.json", b"{}")
        run.write_lines("lines.csv", ["é\n", "b\n"])
        run.write_documents("rows.jsonl", [{"loss": float("nan"), "name": "caf\udce9"}])
        run.write_folder("model", tmp_path / "model")
        run.write_status(b"running")

    written = {name: (tmp_path / "out" / run.prefix / name).read_bytes() for name in run.files}
    assert {"a.json": b"{}", "lines.csv": "é\nb\n".encode(), "model/weights": b"w"}.items() <= written.items()
    assert {"loss": None, "name": "caf\\udce9"} == json.loads(written["rows.jsonl"])
    assert {"a.json", "lines.csv", "rows.jsonl", "model/weights"} == set(run.files)
    for name, data in written.items():
        facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "crc32c": f"{storage.crc32c(data):08x}"}
        assert facts == run.files[name]


def test_superseded_process_writes_nothing(tmp_path: Path) -> None:
    """A process that another one of its Job has superseded stops at its next write, and leaves status.json alone."""
    settings = load("--run.job_uid=job").settings
    first, second = opened(tmp_path, "--run.job_uid=job"), opened(tmp_path, "--run.job_uid=job")
    with checkpoints_of(first, settings), checkpoints_of(second, settings):
        second.write("a.json", b"second")
        second.write_status(b"second")
        with pytest.raises(errors.StoppedError):
            first.write("a.json", b"first")
        first.write_status(b"first")

    folder = tmp_path / first.prefix
    assert (b"second", b"second") == ((folder / "a.json").read_bytes(), (folder / "status.json").read_bytes())


def test_encode() -> None:
    """Documents are strict JSON with a final line break: what is not finite is null."""
    assert b'{\n  "loss": null,\n  "label": "\xc3\xa9"\n}\n' == encode({"loss": float("inf"), "label": "é"})
