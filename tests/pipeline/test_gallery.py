"""What a run reports about single images, its TensorBoard files and its model card; and that nothing of it matters."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import light_runs
import numpy as np
import pytest
import tensorflow as tf
from classifiers import varied_classifier
from digests import arrays_sha256
from PIL import Image
from runs import WITH_REPORT, At, Facts, draw, only_run, run, strict_json

from job.config.settings import ModelSettings
from job.evaluation import gallery, saliency
from job.training.cross_validation import FoldHeads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

IMAGES = 60
LEARNS = ("--feature_extraction.learning_rate", "0.003", "--feature_extraction.epochs", "8")
"""Stage 1 learns the classes, and overfits no wrong label."""

FLIPPED = {f"{label}/{number}.png" for label in ("across", "upright") for number in (7, 27, 47)}
"""Names of the pictures that lie in the folder of the other class: 5 %."""


def draw_stripes(path: Path, *, upright: bool, seed: int) -> None:
    """Draw bright and dark stripes with noise."""
    stripes = np.broadcast_to(40 + 150.0 * (np.arange(32) // 4 % 2), (32, 32))
    noise = np.random.default_rng(seed).integers(-30, 30, (32, 32, 3))
    pixels = (stripes if upright else stripes.T)[:, :, None] + noise
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for each of two classes, with 60 pictures each, of which 3 show the other class."""
    folder = tmp_path_factory.mktemp("flipped")
    for label in ("across", "upright"):
        for n in range(IMAGES):
            name = f"{label}/{n}.png"
            upright = (label == "upright") != (name in FLIPPED)
            draw_stripes(folder / name, upright=upright, seed=n if label == "across" else 100 + n)
    return folder


@pytest.fixture(scope="module")
def learns(flipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[str | Path]:
    """Return the arguments of a run on the flipped pictures, with weights whose features depend on the picture."""
    weights = tmp_path_factory.mktemp("weights") / "varied.weights.h5"
    settings = ModelSettings(weights="none", alpha=0.35, image_size=32)
    with light_runs.here():
        varied_classifier(settings, ("a", "b")).base_model.save_weights(weights)
    return ("--input.uri", flipped, "--model.weights", weights, *LEARNS, *WITH_REPORT)


@pytest.fixture(scope="module")
def undisturbed(learns: Sequence[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run on the flipped pictures, with everything that can be reported."""
    output = tmp_path_factory.mktemp("undisturbed")
    with light_runs.here():
        run(*learns, "--output.uri", output, "--log.tensorboard", "true")
    return only_run(output)


def suspected(folder: Path) -> list[dict[str, object]]:
    """Return the rows of label_errors.jsonl."""
    return [strict_json(line) for line in (folder / "data/label_errors.jsonl").read_text().splitlines()]


def test_flipped_labels_are_suspected(undisturbed: Path) -> None:
    """Most pictures with a wrong label are suspected, of the train split as well, and few others."""
    rows = suspected(undisturbed)
    names = {"/".join(str(row["uri"]).split("/")[-2:]) for row in rows}

    assert len(names & FLIPPED) > len(FLIPPED) / 2
    assert len(names - FLIPPED) <= len(FLIPPED) / 2
    assert {"train"} <= {row["split"] for row in rows}
    assert all({"across", "upright"} == {row["label"], row["suggested"]} for row in rows)
    margins = [row["probability"] - row["suggested_probability"] for row in rows]
    assert sorted(margins) == margins
    summary = strict_json((undisturbed / "metrics/metrics.json").read_bytes())["label_errors"]
    assert len(rows) == summary["train"]["suspected"] + summary["validation"]["suspected"]
    assert 2 * IMAGES == summary["train"]["images"] + summary["validation"]["images"]


def test_gallery(undisturbed: Path) -> None:
    """The gallery has the mistakes of predictions.csv, the most confident first, and the suspects in their order."""
    document = strict_json((undisturbed / "report/gallery.json").read_bytes())
    predictions = csv.DictReader((undisturbed / "metrics/predictions.csv").read_text().splitlines())
    wrong = [row for row in predictions if row["label"] != row["prediction"]]
    wrong.sort(key=lambda row: (-float(row[f"probability_{row['prediction']}"]), row["uri"]))

    keys = ("uri", "split", "label", "prediction")
    assert [tuple(row[key] for key in keys) for row in wrong[:24]] == [
        tuple(mistake[key] for key in keys) for mistake in document["mistakes"]
    ]
    assert document["mistakes"]
    assert suspected(undisturbed)[:24] == [
        {key: value for key, value in row.items() if key != "picture"} for row in document["label_errors"]
    ]


def test_tensorboard_files(undisturbed: Path) -> None:
    """The files have every epoch of history.csv, and are listed in manifest.json with all other files."""
    history = list(csv.DictReader((undisturbed / "metrics/history.csv").read_text().splitlines()))
    [file] = (undisturbed / "tensorboard/validation").iterdir()
    messages = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))][1:]

    values = {
        event.step: float(tf.make_ndarray(value.tensor))
        for event in messages
        for value in event.summary.value
        if value.tag == "loss"
    }
    assert pytest.approx({int(row["epoch_total"]): float(row["val_loss"]) for row in history}) == values
    listed = strict_json((undisturbed / "manifest.json").read_bytes())["files"]
    assert file.stat().st_size == listed[f"tensorboard/validation/{file.name}"]["size"]


def test_stopped_in_stage_2(learns: Sequence[str | Path], undisturbed: Path, tmp_path: Path) -> None:
    """A run that is stopped in stage 2 and resumed has the same model, suspects and gallery as an undisturbed one."""
    arguments = (*learns, "--output.uri", tmp_path)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(*arguments, listeners=[At("model.chosen", stop)])
    started = Facts("run.started")
    run(*arguments, listeners=[started])

    assert [True] == [facts["resumed"] for facts in started.seen]
    for name in ("data/label_errors.jsonl", "report/gallery.json"):
        assert (undisturbed / name).read_bytes() == (only_run(tmp_path) / name).read_bytes()
    model = "model/model.keras"
    assert arrays_sha256(undisturbed / model) == arrays_sha256(only_run(tmp_path) / model)


def test_switched_off(learns: Sequence[str | Path], undisturbed: Path, tmp_path: Path) -> None:
    """Without the report and the label errors there are no files of them, and the model has the same bits."""
    off = ("--report.enabled", "false", "--report.label_errors", "false")
    run(*learns, "--output.uri", tmp_path, *off)

    folder = only_run(tmp_path)
    assert not (folder / "data/label_errors.jsonl").exists()
    assert not (folder / "report").exists()
    assert not (folder / "tensorboard").exists()
    summary = strict_json((folder / "metrics/metrics.json").read_bytes())["label_errors"]
    assert [None] * 3 == [summary[name] for name in ("train", "validation", "test")]
    assert arrays_sha256(undisturbed / "model/model.keras") == arrays_sha256(folder / "model/model.keras")
    assert undisturbed.name == folder.name


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the heads, the heatmaps and the mistakes fail."""

    def fail(*_: object, **_named: object) -> None:
        raise ZeroDivisionError("broken")

    for owner, name in ((FoldHeads, "train"), (saliency, "heatmaps"), (gallery, "document")):
        monkeypatch.setattr(owner, name, fail)
    monkeypatch.setattr("job.evaluation.model_card.card", fail)
    return


@pytest.mark.usefixtures("broken")
def test_failures_cost_a_part(pictures: Path, tmp_path: Path) -> None:
    """A failure in the gallery, the heads or the card is a warning, and the run is published without that part."""
    failed, found = Facts("report.part_failed"), Facts("label_errors.found")
    arguments = ("--input.uri", pictures, "--output.uri", tmp_path, "--fine_tuning.epochs", "0", *WITH_REPORT)
    names = run(*arguments, listeners=[failed, found])

    folder = only_run(tmp_path)
    assert "run.succeeded" in names
    assert {"label errors of the train split", "gallery", "model card"} == {facts["part"] for facts in failed.seen}
    assert {"ZeroDivisionError: broken"} == {facts["error"] for facts in failed.seen}
    assert [None] == [facts["train"] for facts in found.seen]
    assert (folder / "data/label_errors.jsonl").exists()
    assert [False, False] == [(folder / name).exists() for name in ("model_card.md", "report/gallery.json")]
    summary = strict_json((folder / "metrics/metrics.json").read_bytes())["label_errors"]
    assert {"train", "test"} == set(summary["unavailable"])


def snippets(card: str) -> Sequence[str]:
    """Return the Python code of a card."""
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_card_loads_the_model(published: Path, tmp_path: Path) -> None:
    """The code of the card runs in the run's folder, without this package, and all of it answers alike."""
    folder = shutil.copytree(only_run(published), tmp_path / "run")
    draw(folder / "picture.png", shade=60, seed=3)
    code = snippets((folder / "model_card.md").read_text(encoding="utf-8"))
    assert 3 == len(code)
    program = "\n".join(["import sys", *code, "assert 'job' not in sys.modules"]).replace("picture.jpg", "picture.png")

    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    answers = [re.findall(r"(dark|light)': (?:np\.float32\()?([\d.e-]+)", line) for line in done.stdout.splitlines()]
    assert [["dark", "light"]] * 3 == [[label for label, _ in answer] for answer in answers]
    probabilities = [[float(value) for _, value in answer] for answer in answers]
    assert pytest.approx(probabilities[0], abs=1e-3) == probabilities[1]
    assert pytest.approx(probabilities[0], abs=1e-3) == probabilities[2]


def test_card_of_a_run(published: Path) -> None:
    """The card has the figures of metrics.json."""
    folder = only_run(published)
    card = (folder / "model_card.md").read_text(encoding="utf-8")
    metrics = json.loads((folder / "metrics/metrics.json").read_text())

    assert f"| {metrics['validation']['accuracy']:.3f}" in card
    assert f"# {folder.name}" in card.replace("\\", "")
