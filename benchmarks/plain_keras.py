"""The peer: the recipe as a practitioner writes it in plain Keras, with two calls of ``fit``.

It is what the job is measured against, so it must stay what it is: no caching, no folding, TensorFlow's own threads and
TensorFlow's own choice about oneDNN (set ``TF_ENABLE_ONEDNN_OPTS`` outside to see the other one).

    python benchmarks/plain_keras.py --data FOLDER --weights imagenet --json history.json

FOLDER has ``train/`` and ``validation/``, with a folder for each class in both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import keras


def main() -> None:
    """Train both stages and print or write one continuous history."""
    options = parse()
    keras.utils.set_random_seed(options.seed)

    train, validation = (load(options, folder) for folder in ("train", "validation"))
    base_model, model = build(options, classes=len(train.class_names))
    loss = "binary_crossentropy" if len(train.class_names) == 2 else "categorical_crossentropy"
    feature_extraction, fine_tuning = options.epochs
    clock = Clock()

    base_model.trainable = False
    model.compile(keras.optimizers.Adam(1e-4), loss=loss, metrics=["accuracy"])
    started = time.perf_counter()
    model.fit(train, validation_data=validation, epochs=feature_extraction, callbacks=[clock], verbose=2)
    seconds = {"feature_extraction": time.perf_counter() - started}

    base_model.trainable = True
    for layer in base_model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    model.compile(keras.optimizers.Adam(1e-5), loss=loss, metrics=["accuracy"])
    started = time.perf_counter()
    model.fit(
        train,
        validation_data=validation,
        initial_epoch=feature_extraction,
        epochs=feature_extraction + fine_tuning,
        callbacks=[clock],
        verbose=2,
    )
    seconds["fine_tuning"] = time.perf_counter() - started

    stages = ["feature_extraction"] * feature_extraction + ["fine_tuning"] * fine_tuning
    result = {
        "history": [{"stage": stage, **row} for stage, row in zip(stages, clock.rows, strict=True)],
        "seconds": seconds,
        "settings": {name: str(value) for name, value in vars(options).items()},
    }
    text = json.dumps(result, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train/ and validation/")
    parser.add_argument("--weights", default="imagenet", help="imagenet, none or a weights file (no top)")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 10], metavar=("STAGE1", "STAGE2"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where the result goes; printed by default")
    return parser.parse_args()


def load(options: argparse.Namespace, folder: str) -> Any:
    """Return batches of (float32 pixels [n, s, s, 3] in 0..255, labels)."""
    path = options.data / folder
    classes = sum(entry.is_dir() for entry in path.iterdir())
    return keras.utils.image_dataset_from_directory(
        path,
        label_mode="binary" if classes == 2 else "categorical",
        image_size=(options.image_size, options.image_size),
        batch_size=options.batch_size,
        shuffle=folder == "train",
        seed=options.seed,
    )


def build(options: argparse.Namespace, *, classes: int) -> tuple[keras.Model, keras.Model]:
    """Return the backbone, and the whole model around it."""
    shape = (options.image_size, options.image_size, 3)
    weights = None if options.weights == "none" else options.weights
    base_model = keras.applications.MobileNetV2(
        input_shape=shape, include_top=False, weights=weights, alpha=options.alpha
    )
    inputs = keras.Input(shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base_model(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(50, activation="relu", name="fc1")(x)
    if classes == 2:
        outputs = keras.layers.Dense(1, activation="sigmoid", name="output")(x)
    else:
        outputs = keras.layers.Dense(classes, activation="softmax", name="output")(x)
    return base_model, keras.Model(inputs, outputs)


class Clock(keras.callbacks.Callback):  # type: ignore[misc]  # Keras is Any here
    """One row an epoch: what Keras measured, and the wall seconds, validation counted."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002 - Keras's names
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the row."""
        self.rows.append({"epoch": epoch + 1, **(logs or {}), "seconds": time.perf_counter() - self.started})


if __name__ == "__main__":
    main()
