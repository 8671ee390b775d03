"""Folded BatchNormalization is the plain network: the same logits and the same gradients, in less time.

    python benchmarks/folding.py

Equality in float64, where rounding can hide nothing: logits, and the gradients of the recipe's loss in every variable
of stage 2, with the ImageNet weights. A difference is relative to the largest number of its array.
Speed in float32, as the job computes: plain and folded in turn, step by step, in one process.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import harness
import numpy as np

from job.config.load import load_settings
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from job.config.settings import Settings
    from job.model.classifier import Classifier

WARM_UP = 3


def main() -> None:
    """Compare in float64, time in float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--images", type=int, default=32, help="in a batch, for the times")
    parser.add_argument("--compared", type=int, default=8, help="images, for the differences")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    flags = ["--model.weights", options.weights, "--model.image_size", str(options.image_size)]
    settings = load_settings(flags, {}).settings
    device.prepare()
    device.configure(settings)
    with harness.pictures(options) as folder:
        pixels, labels = read(folder, options)

    differences = compare(settings, pixels[: options.compared], labels[: options.compared])
    worst = max(differences, key=differences.__getitem__)
    rows: list[list[object]] = [
        ["logits, float64", f"{differences['logits']:.1e}", "<= 1e-9"],
        [f"all gradients, float64: worst of {len(differences) - 1} ({worst})", f"{differences[worst]:.1e}", "<= 1e-9"],
    ]
    for name, (plain, folded) in speed(settings, pixels, labels, options.rounds).items():
        milliseconds = " against ".join(f"{harness.Spread.of(times).median * 1e3:.0f}" for times in (plain, folded))
        title = f"{name}, float32: plain over folded, {milliseconds} ms for {len(pixels)} images"
        rows.append([title, f"{harness.ratio(plain, folded)}x", ""])
    harness.record("Folded equals plain", ["", "relative difference, or ratio", "reach"], rows)


def read(folder: Path, options: argparse.Namespace) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return pixels, uint8 [images, size, size, 3], and labels, int32 [images], taken from the classes in turn."""
    from job.data import decode, image_header

    classes = [sorted(path.iterdir()) for path in sorted((folder / "train").iterdir())]
    labels = np.arange(options.images, dtype=np.int32) % len(classes)
    chosen = [classes[label][n // len(classes)].read_bytes() for n, label in enumerate(labels)]
    decoded = [
        decode.decode_image(data, image_header.read_header(data, max_pixels=2**26), options.image_size)
        for data in chosen
    ]
    return np.stack(decoded), labels


def create(settings: Settings) -> tuple[Classifier, dict[str, Callable[..., Any]]]:
    """Return the classifier as stage 2 trains it, and its logits as functions of pixels: plain and folded."""
    import keras

    from job.model import folding, weights
    from job.model.classifier import build
    from job.observability.progress import Progress
    from job.storage import open_store

    classifier, _ = build(
        settings,
        ("cats", "dogs"),
        resumed={},
        machine=device.configure(settings),
        load_weights=lambda network: weights.load_into(network.base_model, settings.model, open_store, Progress()),
    )
    classifier.set_trainable("fine_tuning")

    # note: Classifier.features ends in float32, whatever the model computes in
    def logits_of(base_model: keras.Model) -> Callable[..., Any]:
        def logits(pixels: Any, dropout_seed: Any = None) -> Any:
            maps = base_model(classifier.rescaling(pixels), training=False)
            return classifier.head_logits(keras.ops.mean(maps, axis=(1, 2)), dropout_seed)

        return logits

    folded = folding.fold(classifier.base_model)
    return classifier, {"plain": logits_of(classifier.base_model), "folded": logits_of(folded)}


def compare(settings: Settings, pixels: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Return the relative differences in float64: of the logits, and of each variable's gradient by its path."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy("float64")
    classifier, logits_of = create(settings)
    variables = classifier.model.trainable_variables
    found = {}
    for name, forward in logits_of.items():
        with tf.GradientTape() as tape:
            logits = forward(tf.constant(pixels))
            loss = tf.reduce_mean(classifier.losses(logits, tf.constant(labels)))
        found[name] = [logits.numpy(), *(gradient.numpy() for gradient in tape.gradient(loss, variables))]
        assert all(array.dtype == np.float64 for array in found[name])
    keras.config.set_dtype_policy("float32")
    names = ["logits", *(variable.path for variable in variables)]
    arrays = zip(names, found["plain"], found["folded"], strict=True)
    return {name: float(np.abs(folded - plain).max() / np.abs(plain).max()) for name, plain, folded in arrays}


def speed(
    settings: Settings, pixels: NDArray[Any], labels: NDArray[Any], rounds: int
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the seconds of each forward pass and each training step: (plain, folded)."""
    import keras
    import tensorflow as tf

    from job.training.examples import Examples
    from job.training.step import compile_step

    classifier, logits_of = create(settings)
    assert {variable.dtype for variable in classifier.model.trainable_variables} == {"float32"}
    spec = tf.TensorSpec((None, *pixels.shape[1:]), tf.uint8)
    steps: dict[str, dict[str, Callable[[], Any]]] = {"forward": {}, "training step": {}}
    for name, logits in logits_of.items():
        rows = np.arange(len(pixels))
        examples = Examples(
            inputs=pixels.__getitem__,
            spec=spec,
            logits=logits,
            training_logits=logits,
            precision="float32",
            labels=labels,
            seed=0,
            train=rows,
            validation=rows,
        )
        optimizer = keras.optimizers.Adam(settings.fine_tuning.learning_rate)
        step = compile_step(classifier, examples, optimizer)
        forward = tf.function(logits, input_signature=[spec])
        steps["forward"][name] = partial(forward, pixels)
        steps["training step"][name] = partial(step, pixels, labels, np.zeros(2, np.int32))
    times = {}
    for what, named in steps.items():
        pairs = [(timed(named["plain"]), timed(named["folded"])) for _ in range(WARM_UP + rounds)][WARM_UP:]
        times[what] = [plain for plain, _ in pairs], [folded for _, folded in pairs]
    return times


def timed(compute: Callable[[], Any]) -> float:
    """Return the wall seconds until the result is there."""
    started = time.perf_counter()
    compute()  # note: on the CPU it is done when it returns
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
