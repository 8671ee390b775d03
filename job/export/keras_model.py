"""``model.keras``: the classifier as a Keras model, which loads without this package and in older versions of Keras.

    uint8 pixels of any size -> float32 -> resized to a square -> rounded -> the recipe's model -> probabilities

The recipe's model is the layer ``finetune``, with its own layers and names. Only layers and operations of Keras are
used. The resized pixels are those of `job.data.decode.resize`, to the bit.
"""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from pathlib import Path

    from job.model.classifier import Classifier

DEFAULTS_OF_NEW_ARGUMENTS: dict[str, Any] = {
    "input_axes": None,  # of initializers, 3.15
    "output_axes": None,
    "quantization_config": None,  # of Dense, 3.13
    "renorm": False,  # of BatchNormalization, 3.13
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
    "antialias": False,  # of Resizing, 3.9
    "optional": False,  # of InputLayer, 3.6
}
"""Arguments that Keras writes and older versions refuse, with the version that added each, and their defaults."""


def resizing(classifier: Classifier) -> keras.Model:
    """Return a model that resizes its input and calls the classifier's, whose variables it shares.

    Returns:
        uint8 pixels [n, height, width, 3] -> probabilities, [n, 1] (sigmoid: that of the second label) for two labels,
        [n, labels] for more.
    """
    pixels = keras.Input((None, None, 3), dtype="uint8", name="pixels")
    # note: of integers, Keras 3.4 and 3.5 truncate the resized pixels
    x = keras.layers.Rescaling(1.0, name="float32")(pixels)
    x = keras.layers.Resizing(classifier.image_size, classifier.image_size, name="resizing")(x)
    x = keras.ops.round(x)
    # note: without training=False, a call of the model would run the classifier's layers in training mode: the default
    # of Resizing is training=True, and Keras hands a layer's default on to the layers that follow
    return keras.Model(pixels, classifier.model(x, training=False), name="image_classifier")


def save(classifier: Classifier, path: Path) -> None:
    """Write the model to `path`, whose name ends in ``.keras``.

    Raises:
        OSError: it cannot be written.
    """
    as_saved = path.with_name(f"new-{path.name}")
    resizing(classifier).save(as_saved)
    with zipfile.ZipFile(as_saved) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename == "config.json":
                data = json.dumps(_without_new_arguments(json.loads(data))).encode()
            target.writestr(entry, data)
    as_saved.unlink()


def _without_new_arguments(document: Any, owner: str | None = None) -> Any:
    """Return Keras's JSON without the arguments that older versions refuse, where they have their default.

    Args:
        document: Keras's JSON, or a part of it.
        owner: the module of the class whose arguments `document` holds.
    """
    if isinstance(document, list):
        return [_without_new_arguments(value) for value in document]
    if not isinstance(document, dict):
        return document
    module = str(document.get("module"))
    return {
        key: _without_new_arguments(value, module if key == "config" else None)
        for key, value in document.items()
        if not (owner and _is_new_default(owner, key, value))
    }


def _is_new_default(owner: str, argument: str, value: Any) -> bool:
    """Return whether older versions of `owner` refuse this argument, and newer ones need not be given it."""
    if argument in DEFAULTS_OF_NEW_ARGUMENTS:
        return bool(value == DEFAULTS_OF_NEW_ARGUMENTS[argument])
    return argument == "name" and owner.startswith("keras.src.ops.")  # of an operation that is not a layer: 3.11
