"""Augmentation in stage 2's training step: what the warp, brightness and contrast cost.

    python benchmarks/augmentation.py

The step of the job, of 32 images of 224 pixels, without and with augmentation in turn, in one process. The weights are
random, since the time of a step does not depend on them. Processor time is measured, of all threads, so that other
processes on the machine count little. With augmentation, drawing the numbers counts as well, though a run draws them in
another thread.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import harness
import numpy as np

from job.config.settings import Settings
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 3
EVERYTHING = {"flip": "horizontal", "rotation": 15, "zoom": 0.2, "shift": 0.1, "crop": 0.2}
"""Settings of the warp. Its cost does not depend on their number."""

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "warp": EVERYTHING,
    "warp, brightness, contrast": EVERYTHING | {"brightness": 0.1, "contrast": 0.2},
    "warp, brightness, contrast, mixup": EVERYTHING | {"brightness": 0.1, "contrast": 0.2, "mixup": 0.2},
}


def main() -> None:
    """Measure the steps in turn, and record the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", type=int, default=32, help="in a batch")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    model = {"weights": "none", "image_size": options.image_size}
    settings = {
        name: Settings.model_validate({"model": model, "augmentation": changes})
        for name, changes in AUGMENTATIONS.items()
    }
    plain = Settings.model_validate({"model": model})
    device.prepare()
    steps = create_steps({"plain": plain, **settings}, options.images)

    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(WARM_UP + options.rounds):
        for name, step in steps.items():
            times[name].append(timed(step))
    measured = {name: seconds[WARM_UP:] for name, seconds in times.items()}
    drawn = drawing(settings["warp, brightness, contrast"], options.images)
    milliseconds = {name: harness.Spread.of(1e3 * s for s in seconds) for name, seconds in measured.items()}
    rows: list[list[object]] = [["plain", milliseconds["plain"], "", ""]]
    for name in AUGMENTATIONS:
        reach = "<= 1.10" if name == "warp, brightness, contrast" else ""
        rows.append([name, milliseconds[name], harness.ratio(measured[name], measured["plain"]), reach])
    rows.append(["of which the numbers are drawn, in a run by another thread", drawn, "", ""])
    what = f"{options.images} images of {options.image_size} pixels"
    harness.record(
        "Augmentation in the training step",
        [f"stage 2, {what}", "ms of processor time a step", "times the plain step", "reach"],
        rows,
    )


def create_steps(settings: dict[str, Settings], images: int) -> dict[str, Callable[[], object]]:
    """Return stage 2's training step on a batch of noise, with each of the settings."""
    import keras

    from job.model.classifier import Classifier, create_network
    from job.training.examples import create_examples
    from job.training.step import compile_step

    rows, steps = np.arange(images), dict[str, Any]()
    for name, chosen in settings.items():
        machine = device.configure(chosen)
        network = create_network(chosen.model, ("a", "b"), seed=7)
        classifier = Classifier(
            network, ("a", "b"), pretrained=False, training_precision=machine.precision, xla=machine.xla
        )
        classifier.set_trainable("fine_tuning")
        size = chosen.model.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3)).astype(np.uint8)
        data: Any = SimpleNamespace(
            pixels=pixels.__getitem__, manifest=SimpleNamespace(label=rows.astype(np.int32) % 2)
        )
        split, features = {"train": rows, "validation": rows}, np.zeros((images, 1), np.float32)
        examples = create_examples(classifier, data, features, split, settings=chosen)["fine_tuning"]  # type: ignore[arg-type]  # stage 1 is not run
        step = compile_step(classifier, examples, keras.optimizers.Adam(chosen.fine_tuning.learning_rate))

        def take(examples: Any = examples, step: Any = step, data: Any = data) -> None:
            loss, _ = step(examples.load_for_training(rows, 0), data.manifest.label, np.zeros(2, np.int32))
            float(loss)

        steps[name] = take
    return steps


def drawing(settings: Settings, images: int) -> harness.Spread:
    """Return the milliseconds in which the numbers of a batch are drawn."""
    from job.training.augmentation import draw

    compute = partial(
        draw,
        settings.augmentation,
        np.random.default_rng(0).permutation(100_000)[:images],
        seed=7,
        stage="fine_tuning",
        epoch=0,
        image_size=settings.model.image_size,
    )
    return harness.Spread.of(1e3 * timed(compute) for _ in range(20))


def timed(compute: Callable[[], object]) -> float:
    """Return the processor seconds, of all threads, until the result is there."""
    started = time.process_time()
    compute()
    return time.process_time() - started


if __name__ == "__main__":
    main()
