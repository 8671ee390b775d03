"""model.keras keeps the recipe's layers, and holds no argument that older versions of Keras refuse."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from classifiers import small_classifier

from job.export import keras_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def nodes(document: Any) -> Iterator[dict[str, Any]]:
    """Yield every layer, operation and initializer of Keras's JSON."""
    if isinstance(document, dict):
        if "class_name" in document:
            yield document
        document = list(document.values())
    if isinstance(document, list):
        for value in document:
            yield from nodes(value)


def test_the_inner_model_keeps_layers_and_names(tmp_path: Path) -> None:
    """The published model resizes and then calls the recipe's model, all of whose layers keep names and weights."""
    classifier = small_classifier()
    keras_model.save(classifier, tmp_path / "model.keras")

    published = keras.models.load_model(tmp_path / "model.keras")

    inner = published.layers[-1]
    assert ["pixels", "float32", "resizing", classifier.model.name] == [layer.name for layer in published.layers]
    assert [layer.name for layer in classifier.model.layers] == [layer.name for layer in inner.layers]
    assert ("uint8", (None, None, None, 3)) == (published.input.dtype, published.input_shape)
    for expected, weight in zip(classifier.model.weights, inner.weights, strict=True):
        np.testing.assert_array_equal(expected, weight)
    assert ["model.keras"] == [path.name for path in tmp_path.iterdir()]


def test_only_parts_of_keras_are_used(tmp_path: Path) -> None:
    """Nothing in the file needs this package, nor Keras's permission to run code from the file."""
    keras_model.save(small_classifier(), tmp_path / "model.keras")

    config = json.loads(zipfile.ZipFile(tmp_path / "model.keras").read("config.json"))

    modules = {node["module"] for node in nodes(config) if node.get("module")}
    assert {"keras"} == {module.split(".")[0] for module in modules}
    assert not {node["class_name"] for node in nodes(config)} & {"Lambda", "function", "__lambda__"}


def test_arguments_that_older_versions_refuse_are_omitted(tmp_path: Path) -> None:
    """Arguments that newer versions of Keras added are left out where they have their default."""
    keras_model.save(small_classifier(), tmp_path / "model.keras")

    config = json.loads(zipfile.ZipFile(tmp_path / "model.keras").read("config.json"))

    written = {(node["class_name"], argument) for node in nodes(config) for argument in node.get("config") or ()}
    assert ("GlorotUniform", "seed") in written
    assert ("BatchNormalization", "momentum") in written
    assert ("Round", "name") not in written
    assert set() == {argument for _, argument in written} & set(keras_model.DEFAULTS_OF_NEW_ARGUMENTS)


def test_a_value_that_is_no_default_stays() -> None:
    """An argument that matters is written: an older version must refuse such a model, not load another one."""
    layer = {
        "module": "keras.layers",
        "class_name": "BatchNormalization",
        "config": {"renorm": True, "renorm_momentum": 0.99},
    }

    assert {"renorm": True} == keras_model._without_new_arguments(layer)["config"]
