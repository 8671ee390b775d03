"""Opening a published run by its URI, its folder, or OUTPUT_URI/latest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from job import storage
from job.config.settings import ModelSettings, OutputSettings, Settings
from job.errors import DataError, SettingsError
from job.runs.published import open_published, open_warm_start

if TYPE_CHECKING:
    from pathlib import Path


def publish(folder: Path) -> Path:
    """Make a folder a published run."""
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").write_text("{}")
    return folder


def write_latest(output: Path, run_id: str) -> None:
    """Point latest.json to a run."""
    document = {"run_id": run_id, "run_uri": "/output/runs/elsewhere", "published_at": "2026-01-01T00:00:00Z"}
    (output / "latest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("location", ["runs/flowers-1", "runs/flowers-1/", "latest", "latest/"])
def test_run(tmp_path: Path, location: str) -> None:
    """A run is found by its folder, and by latest.json wherever the output is now."""
    run = publish(tmp_path / "runs/flowers-1")
    write_latest(tmp_path, "flowers-1")

    assert str(run) == open_published(f"{tmp_path}/{location}", storage.open_store).uri


def test_run_in_a_bucket(bucket: str) -> None:
    """An output may be a whole bucket."""
    output = storage.open_store(f"gs://{bucket}")
    output.write("runs/a/_SUCCESS", b"{}")
    output.write("latest.json", b'{"run_id": "a", "published_at": "2026-01-01T00:00:00Z"}')

    assert f"gs://{bucket}/runs/a" == open_published(f"gs://{bucket}/latest", storage.open_store).uri


def test_run_that_is_called_latest(tmp_path: Path) -> None:
    """A run whose ID is `latest` is that run."""
    run = publish(tmp_path / "runs/latest")

    assert str(run) == open_published(str(run), storage.open_store).uri


@pytest.mark.parametrize(
    ("location", "files", "said"),
    [
        ("", {"latest.json": "{}"}, "that is an output"),
        ("runs/a", {"runs/a/status.json": "{}"}, "finetune watch"),
        ("runs/a", {}, "OUTPUT_URI/latest"),
        ("latest", {}, "runs/ID"),
        ("latest", {"latest.json": ""}, "runs/ID"),
        ("latest", {"latest.json": '{"run_id": "../../a", "published_at": ""}'}, "runs/ID"),
        ("latest", {"latest.json": '{"run_id": "gone", "published_at": ""}'}, "runs/ID"),
    ],
)
def test_no_published_run(tmp_path: Path, location: str, files: dict[str, str], said: str) -> None:
    """What is no published run ends with exit code 3 and what to give instead."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    with pytest.raises(DataError) as caught:
        open_published(f"{tmp_path}/{location}", storage.open_store)

    assert said in caught.value.remedy


def test_no_location() -> None:
    """A mistyped URI is answered with the one that was meant."""
    with pytest.raises(SettingsError, match="gs://bucket/runs/a"):
        open_published("gs:/bucket/runs/a", storage.open_store)


@pytest.mark.parametrize("weights", ["latest", "{output}/latest", "{output}/runs/a"])
def test_warm_start(tmp_path: Path, weights: str) -> None:
    """`latest` is that of the output; every other run is found by its URI."""
    publish(tmp_path / "runs/a")
    write_latest(tmp_path, "a")
    settings = Settings(
        output=OutputSettings(uri=str(tmp_path)), model=ModelSettings(weights=weights.format(output=tmp_path))
    )

    assert str(tmp_path / "runs/a") == open_warm_start(settings, storage.open_store).uri
