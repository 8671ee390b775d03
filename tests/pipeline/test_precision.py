"""Runs in half precision, and runs that resume in another precision, on the CPU."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import light_runs
import numpy as np
import pytest
import tensorflow as tf
from paths import WEIGHTS
from runs import Recorder, draw, only_run, run, strict_json

from job import errors
from job.observability.progress import Event, Listener
from job.runtime import device, signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.runtime import gpu
    from job.runtime.device import Precision


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that are hard to tell apart, forty pictures each."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(40):
        draw(folder / "dark" / f"{n}.png", shade=115, seed=n)
        draw(folder / "light" / f"{n}.png", shade=140, seed=100 + n)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with BatchNormalization statistics that fit them, so that features differ between pictures."""
    keras.utils.set_random_seed(7)
    with light_runs.here(light_runs.SHALLOW):
        base_model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    for layer in base_model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    base_model(np.random.default_rng(0).uniform(-1, 1, (64, 32, 32, 3)).astype(np.float32), training=True)
    path = tmp_path_factory.mktemp("weights") / "base.weights.h5"
    base_model.save_weights(path)
    return path


def scored_from_raw_bytes(folder: Path) -> tuple[float, float, float]:
    """Score the validation images with the published SavedModel.

    Returns:
        Accuracy, log loss, and the largest difference from the probabilities in predictions.csv.
    """
    served = tf.saved_model.load(folder / "model/saved_model").signatures["serve_bytes"]
    rows = list(csv.DictReader((folder / "metrics/predictions.csv").read_text().splitlines()))
    labels = (folder / "model/labels.txt").read_text().splitlines()
    encoded = [Path(row["uri"]).read_bytes() for row in rows]
    probabilities = served(image_bytes=tf.constant(encoded))["probabilities"].numpy()
    truth = np.array([labels.index(row["label"]) for row in rows])
    recorded = np.array([[float(row[f"probability_{label}"]) for label in labels] for row in rows])
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    loss = float(-np.log(probabilities[np.arange(len(rows)), truth]).mean())
    return accuracy, loss, float(np.abs(probabilities - recorded).max())


def check(output: Path, precision: Precision) -> None:
    """Assert that the run is published and that its metrics describe the published model."""
    folder = only_run(output)
    metrics = strict_json((folder / "metrics/metrics.json").read_bytes())
    provenance = strict_json((folder / "manifest.json").read_bytes())["provenance"]
    accuracy, loss, difference = scored_from_raw_bytes(folder)

    assert (folder / "_SUCCESS").exists()
    assert precision == provenance["device"]["precision"]
    assert metrics["verification"]["max_difference"] <= metrics["verification"]["tolerance"] == 1e-3
    assert difference <= 1e-3
    assert metrics["validation"]["accuracy"] == accuracy
    assert metrics["validation"]["loss"] == pytest.approx(loss, rel=1e-3)
    assert metrics["kept"]["val_loss"] == pytest.approx(loss, rel=1e-3)


@pytest.mark.usefixtures("whole")
def test_half_precision_is_published(pictures: Path, weights: Path, tmp_path: Path) -> None:
    """A run in half precision is published, and its metrics are those of the published float32 model."""
    arguments = ("--input.uri", pictures, "--output.uri", tmp_path, "--model.weights", weights, "--keep", "last")
    rates = ("--feature_extraction.learning_rate", "0.05", "--fine_tuning.learning_rate", "0.001")
    with light_runs.here(light_runs.SHALLOW):
        run(*arguments, *rates, "--feature_extraction.epochs", "3", "--device.mixed_precision", "bfloat16")

    check(tmp_path, "bfloat16")


@pytest.mark.needs_shared
@pytest.mark.usefixtures("whole")
def test_half_precision_with_imagenet_weights(pictures: Path, tmp_path: Path) -> None:
    """The same in the other half precision, with the weights that users start from."""
    [file] = WEIGHTS.glob("*_0.35_224_no_top.h5")
    arguments = ("--input.uri", pictures, "--output.uri", tmp_path, "--model.weights", file)
    rates = ("--feature_extraction.learning_rate", "0.01", "--fine_tuning.learning_rate", "0.0001")
    run(*arguments, *rates, "--model.image_size", "64", "--device.mixed_precision", "float16")

    check(tmp_path, "float16")


class Changes(Listener):
    """Remembers what `device.changed` reports."""

    def __init__(self) -> None:
        self.facts: dict[str, object] = {}

    def on_event(self, event: Event) -> None:
        """Remember it."""
        if event.name == "device.changed":
            self.facts = dict(event.facts)


class StopInStage2(Listener):
    """Stops the run, as a signal does, after the first step of stage 2: within an epoch."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def on_event(self, event: Event) -> None:
        """Stop where it is time."""
        if event.name == "stage.first_step" and event.facts["stage"] == "fine_tuning":
            self._patch.setattr(signals, "received", lambda: "SIGTERM")


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(
    ("began", "offered"),
    # note: tests/pipeline/test_training_step.py has all nine, in both stages
    [("float16", "bfloat16"), ("float16", "float32")],  # it keeps its precision; it changes, and scales no loss
)
def test_resume_on_another_device(
    pictures: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    began: Precision,
    offered: Precision,
) -> None:
    """A run that is stopped in stage 2 resumes on a device that was made for another precision, and is published."""
    made_for: dict[Precision, tuple[Precision, ...]] = {
        "float32": ("float32",),
        "float16": ("float16", "float32"),
        "bfloat16": ("bfloat16", "float16", "float32"),
    }

    def offer(precision: Precision) -> None:
        def precisions(_: Sequence[gpu.Gpu]) -> tuple[Precision, ...]:
            return made_for[precision]

        monkeypatch.setattr(device, "precisions", precisions)

    arguments = ("--input.uri", pictures, "--output.uri", tmp_path, "--model.weights", weights)
    arguments += ("--fine_tuning.epochs", "2", "--fine_tuning.batch_size", "16")
    offer(began)
    with monkeypatch.context() as patch, pytest.raises(errors.StoppedError):
        run(*arguments, listeners=[StopInStage2(patch)])
    offer(offered)
    changes, recorder = Changes(), Recorder()
    run(*arguments, listeners=[changes, recorder])

    resumed = began if began in made_for[offered] else offered
    assert "run.published" in recorder.names
    assert (resumed != began) == ("precision" in changes.facts.get("now", {}))
    check(tmp_path, resumed)
