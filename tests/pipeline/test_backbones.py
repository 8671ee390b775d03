"""The backbones that tests/unit/model/test_backbones.py leaves out, whole runs with another one, and a cached top."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from typing import TYPE_CHECKING

import h5py
import keras
import light_runs
import numpy as np
import pytest
import runs
import tensorflow as tf
from backbone_checks import check_backbone, check_float16_step, randomize
from classifiers import new_classifier
from keras.src.legacy.saving import legacy_h5_format

from job import storage
from job.config.backbones import BACKBONES
from job.config.settings import ModelSettings
from job.export import keras_model
from job.model import backbones, weights
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("whole")

BY_UNIT_TESTS = {"MobileNetV3Small", "ResNet50"}


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in BY_UNIT_TESTS])
def test_backbone(name: str) -> None:
    """Preprocessing, folding, half precision and facts are right."""
    check_backbone(name)


@pytest.mark.usefixtures("functions_run_eagerly")
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0", "ResNet50", "ConvNeXtTiny", "DenseNet121"])
def test_float16_step(name: str) -> None:
    """A training step in float16 is finite and close to one in float32; test_precision.py has it compiled."""
    check_float16_step(name)


SETTINGS = (
    *(
        "--model.backbone",
        "MobileNetV3Small",
        "--model.alpha",
        "1.0",
        "--model.head_units",
        "0",
        "--model.dropout",
        "0.2",
    ),
    *("--fine_tuning.from_layer", "expanded_conv_9_expand", "--fine_tuning.epochs", "2"),
    *("--fine_tuning.learning_rate", "1e-3", "--keep", "last"),
)


def test_run_with_another_backbone_and_a_cached_frozen_part(pictures: Path, tmp_path: Path) -> None:
    """On the CPU a run on cached outputs of the frozen part has the losses of one that computes them in each step.

    The published model is another backbone's, with a plain linear head: its SavedModel, model.keras and card are right.
    """
    curves, initial = [], backbones.create("MobileNetV3Small", alpha=1.0, image_size=32)
    randomize(initial)  # with the statistics of a new model, the features would be nearly zero
    initial.save_weights(tmp_path / "initial.weights.h5")
    start = (*SETTINGS, "--model.weights", tmp_path / "initial.weights.h5")
    for cached in ("true", "false"):
        output = tmp_path / cached
        opened = runs.Facts("cache.opened")
        arguments = ("--input.uri", pictures, "--output.uri", output, *start, "--fine_tuning.cache_frozen", cached)
        if cached == "true":
            published = ("--report.enabled", "true", "--export.formats", "tflite,onnx")
            runs.run(*arguments, *published, listeners=[opened])
        else:
            with light_runs.here("job.export.verification"):
                runs.run(*arguments, listeners=[opened])
        assert (cached == "true") == ("frozen_bytes" in opened.seen[0])
        rows = csv.DictReader((runs.only_run(output) / "metrics/history.csv").read_text().splitlines())
        curves.append([[float(row[name]) for name in ("loss", "val_loss")] for row in rows])

    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)
    folder = runs.only_run(tmp_path / "true")
    card = (folder / "model_card.md").read_text()
    made_by = json.loads((folder / "manifest.json").read_text())["provenance"]
    assert "MobileNetV3Small (alpha 1, 32 pixels)" in card
    assert "from expanded\\_conv\\_9\\_expand on" in card
    assert "- mobilenetv3small" in card
    assert made_by["weights"]["backbone"] == "MobileNetV3Small"
    assert "MobileNetV3Small" in (folder / "report/index.html").read_text()
    metrics = json.loads((folder / "metrics/metrics.json").read_text())
    assert all(metrics["exports"][name]["passed"] for name in ("tflite", "onnx"))
    model = keras.models.load_model(folder / "model" / "model.keras")
    names = [layer.name for layer in model.get_layer("finetune").layers]
    assert ["pooling", "dropout", "output"] == names[-3:]


@pytest.mark.parametrize("name", ["MobileNetV3Small", "ConvNeXtTiny", "ResNet50"])
def test_model_keras_loads(name: str, tmp_path: Path) -> None:
    """``model.keras`` of a backbone with layers or scaling of its own loads in Keras, with the same answers."""
    classifier = new_classifier(ModelSettings(backbone=name, image_size=32, weights="none"), ("a", "b"), seed=7)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)

    keras_model.save(classifier, tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")
    for expected, weight in zip(classifier.model.weights, loaded.get_layer("finetune").weights, strict=True):
        np.testing.assert_array_equal(expected, weight)
    if name != "ConvNeXtTiny":  # called operation by operation, Keras compiles each of its convolutions for a second
        answers = classifier.probabilities(classifier.logits(tf.constant(pixels))).numpy()[:, 1:]
        np.testing.assert_allclose(loaded(pixels), answers, atol=1e-4)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        described = archive.read("config.json").decode()
    # Versions before 3.11 refuse the name of an operation that is no layer, such as Flip or Add.
    operations = re.findall(r'"module": "keras\.src\.ops\.\w+", "class_name": "\w+", "config": \{[^{}]*\}', described)
    assert operations
    assert not any('"name"' in operation for operation in operations)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["EfficientNetV2B0", "ConvNeXtTiny"])
def test_files_of_keras_load(name: str, legacy: bool, tmp_path: Path) -> None:
    """Weights that Keras's own model was saved with load, in the published format (of Keras 2) and in Keras 3's.

    EfficientNetV2 is built without its dropout, and ConvNeXt has nested models and variables without names.
    """
    original = getattr(keras.applications, name)(input_shape=(32, 32, 3), include_top=False, weights=None)
    path = tmp_path / ("file.h5" if legacy else "file.weights.h5")
    if legacy:
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, original)
    else:
        original.save_weights(path)
    settings = ModelSettings(backbone=name, image_size=32, weights=str(path))
    base_model = backbones.create(name, alpha=1.0, image_size=32)

    weights.load_into(base_model, settings, storage.open_store, Progress())

    for expected, weight in zip(original.weights, base_model.weights, strict=True):
        np.testing.assert_array_equal(expected, weight)
