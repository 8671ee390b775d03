"""A run's prefix: what is written is recorded, and another run is never overwritten."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from job import errors, storage
from job.config.load import Loaded, load_settings
from job.runs.identity import Identity, identify
from job.runs.run import Run, encode, open_run, pinned_run

if TYPE_CHECKING:
    from pathlib import Path


def opened(folder: Path, *flags: str, data: str = "da7a") -> Run:
    """Open the run of these flags and data below a folder."""
    loaded = load(*flags)
    return open_run(storage.open_store(str(folder)), loaded, identity(loaded, data))


def load(*flags: str) -> Loaded:
    """Load these flags."""
    return load_settings(flags, {})


def identity(loaded: Loaded, data: str) -> Identity:
    """Return the identity of these settings and data."""
    return Identity(recipe=1, data=data, settings=identify(loaded.settings).settings)


def test_same_work_is_the_same_run(tmp_path: Path) -> None:
    """The same settings and data are the same run; different data are a different run."""
    run = opened(tmp_path)

    assert run.id == opened(tmp_path, "--log.level=debug").id
    assert run.id != opened(tmp_path, data="0ther").id
    assert f"{tmp_path}/runs/{run.id}" == run.uri
    assert identity(load(), "da7a").document() == (run.read("config.json") or {})["identity"]


def test_id_that_is_taken(tmp_path: Path) -> None:
    """A run.id of a run with other settings is rejected, naming the difference."""
    opened(tmp_path, "--run.id=mine")

    with pytest.raises(errors.SettingsError, match=r"run.id 'mine' is taken .*run.seed is 8, and was"):
        opened(tmp_path, "--run.id=mine", "--run.seed=8")


@pytest.mark.parametrize(
    ("flag", "data", "expected"),
    [("--run.seed=8", "da7a", errors.SettingsError), ("--log.level=debug", "0ther", errors.DataError)],
)
def test_job_whose_input_changes(tmp_path: Path, flag: str, data: str, expected: type[errors.FinetuneError]) -> None:
    """A Job keeps to the run of its first Pod: other settings or data later are errors."""
    first = opened(tmp_path, "--run.job_uid=job")

    assert first.id == opened(tmp_path, "--run.job_uid=job").id
    with pytest.raises(expected, match="changed since this Job began its run"):
        opened(tmp_path, "--run.job_uid=job", flag, data=data)


def test_pinned_run(tmp_path: Path) -> None:
    """A later Pod finds the Job's run without the data; not under another run.id, nor after it was removed."""
    store, settings = storage.open_store(str(tmp_path)), load("--run.job_uid=job").settings
    assert pinned_run(store, settings) is None
    run = opened(tmp_path, "--run.job_uid=job")

    found = pinned_run(store, settings)

    assert found is not None
    assert run.id == found.id
    with pytest.raises(errors.SettingsError, match=r"run.id is 'other', and this Job works on"):
        pinned_run(store, load("--run.job_uid=job", "--run.id=other").settings)
    (tmp_path / "runs" / run.id / "config.json").unlink()
    assert pinned_run(store, settings) is None


def test_files_are_recorded(tmp_path: Path) -> None:
    """Every file that is written is recorded with its checksums, status.json excepted: it changes."""
    run = opened(tmp_path / "out")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w")
    with run.checkpoints(load().settings):
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
    with first.checkpoints(settings), second.checkpoints(settings):
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
