"""`finetune evaluate` with a published model: on its own validation images it gives the run's own metrics."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runs import draw, only_run, strict_json, tree

from job import storage
from job.commands import evaluate
from job.errors import DataError
from job.observability.progress import Progress

FILES = {"confusion.csv", "curves.json", "metrics.json", "predictions.csv", "quarantine.jsonl", "report/index.html"}


def execute(*arguments: str | Path) -> None:
    """Execute the command in this process, and require that it succeeds."""
    assert 0 == evaluate.parse([*map(str, arguments)]).execute(Progress())


def metrics(folder: Path) -> dict[str, Any]:
    """Return metrics.json."""
    document = strict_json((folder / "metrics.json").read_bytes())
    assert isinstance(document, dict)
    return document


def test_validation_images(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The validation images, as a table of another order, get the metrics of the run, which is not changed."""
    run, before = only_run(published), tree(published)
    rows = list(csv.DictReader((run / "metrics/predictions.csv").read_text().splitlines()))
    table = tmp_path / "held-out.csv"
    table.write_text("".join(f"{row['uri']},{row['label']}\n" for row in reversed(rows)))

    execute(published / "latest", table, "--out", tmp_path / "metrics")

    found, recorded = metrics(tmp_path / "metrics"), strict_json((run / "metrics/metrics.json").read_bytes())
    assert set(tree(tmp_path / "metrics")) >= FILES
    page = (tmp_path / "metrics/report/index.html").read_text(encoding="utf-8")
    assert f"test is {table}, measured by finetune evaluate" in page
    assert found["validation"] is None
    for name in ("images", "accuracy", "balanced_accuracy", "confusion", "confused"):
        assert recorded["validation"][name] == found["test"][name]
    for name in ("loss", "log_loss", "brier", "roc_auc", "pr_auc"):
        assert recorded["validation"][name] == pytest.approx(found["test"][name], abs=1e-4)
    assert str(run) == found["evaluation"]["run_uri"]
    assert before == tree(published)
    assert f"accuracy           {found['test']['accuracy']:.4f}" in capsys.readouterr().out
    predictions = list(csv.DictReader((tmp_path / "metrics/predictions.csv").read_text().splitlines()))
    assert {row["uri"]: row["prediction"] for row in rows} == {row["uri"]: row["prediction"] for row in predictions}


def test_layouts_and_unknown_labels(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Splits are read as in a run, and all of them measured; labels that the model does not know are named."""
    for n, name in enumerate(("train/dark/1.jpg", "train/green/2.jpg", "test/dark/3.jpg", "test/green/4.jpg")):
        draw(tmp_path / "set" / name, shade=60, seed=n)
    arguments = (only_run(published), tmp_path / "set", "--out", tmp_path / "metrics", "--json")

    with pytest.raises(DataError, match="does not know 'green': 2 of 4 images"):
        execute(*arguments)
    execute(*arguments, "--ignore-unknown")

    document = json.loads(capsys.readouterr().out)
    assert metrics(tmp_path / "metrics") == document
    assert ({"green": 2}, 2) == (document["evaluation"]["ignored_labels"], document["evaluation"]["images"])
    assert document["test"]["labels"]["light"]["recall"] is None
    assert document["test"]["roc_auc"] is None
    assert "labels.light.recall" in document["test"]["unavailable"]


def test_quarantine(published: Path, pictures: Path, tmp_path: Path) -> None:
    """Unusable images are listed with their reason; more than the budget allows end the command with exit code 3."""
    data = shutil.copytree(pictures, tmp_path / "set")
    (data / "dark/0.jpg").write_bytes(b"<html>")
    (data / "light/0.png").write_bytes((data / "light/1.png").read_bytes()[:500])
    (data / "light/2.png").write_bytes(b"")
    arguments = (published / "latest", data, "--out", tmp_path / "metrics")

    with pytest.raises(DataError, match="3 of 20 images") as raised:
        execute(*arguments)
    assert f"{tmp_path}/metrics/quarantine.jsonl" in raised.value.remedy
    execute(*arguments, "--input.max_bad_fraction", "0.2")

    listed = [json.loads(line) for line in (tmp_path / "metrics/quarantine.jsonl").read_text().splitlines()]
    expected = [("0.jpg", "dark", "not_an_image"), ("0.png", "light", "corrupt"), ("2.png", "light", "empty")]
    assert expected == [(Path(image["uri"]).name, image["label"], image["reason"]) for image in listed]
    facts = metrics(tmp_path / "metrics")["evaluation"]
    assert (17, 3) == (facts["images"], facts["quarantined"])


def test_bucket(published: Path, pictures: Path, bucket: str) -> None:
    """The set and the metrics may be in a bucket."""
    store = storage.open_store(f"gs://{bucket}")
    for path in pictures.rglob("*.*"):
        store.write(f"set/{path.relative_to(pictures).as_posix()}", path)

    execute(published / "latest", f"gs://{bucket}/set", "--out", f"gs://{bucket}/metrics")

    assert FILES <= {info.name.removeprefix("metrics/") for info in store.list("metrics")}
    assert 20 == json.loads(store.read("metrics/metrics.json")[0])["evaluation"]["images"]
