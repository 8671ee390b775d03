"""A stage with several steps a call, with one call a step, and with two.

    python benchmarks/calls.py

An epoch of the job's own loop on drawn features, which are in a file as a run's are: rows are read, steps taken, and
progress reported. The ways take turns, epoch by epoch, in one process. Two calls a step are gradients and optimizer as
functions of their own. All ways must end in the same weights on the CPU. `make gpu-check` measures both stages on a
GPU, with drawn pixels in stage 2.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import harness
import numpy as np

from job.config.load import load_settings
from job.config.settings import STAGES
from job.observability.progress import Listener, Progress
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.settings import Settings
    from job.data.cache_files import Rows
    from job.runtime.device import Device
    from job.training.stages import StageTrainer
    from job.training.state import TrainingState

SMALL = ("model.alpha=0.35", "model.image_size=32", "device.threads=1")
"""Only the backbone is smaller: it has features of the same size."""

BATCH = 32

SEVERAL, ONE, TWO = "several steps a call", "one call a step", "two calls a step"


class EachStep(Listener):
    """Needs each step, as a log of level debug does: one call a step."""

    needs_each_step = True


class Way(NamedTuple):
    """One way to take the steps.

    Attributes:
        trainer: of stage 1.
        state: that it updates.
    """

    trainer: StageTrainer
    state: TrainingState


def main() -> None:
    """Measure, and write down the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, default="feature_extraction")
    parser.add_argument("--images", type=int, default=50_000, help="that are trained on in an epoch")
    parser.add_argument("--validation", type=int, default=32, help="images that are measured with at its end")
    parser.add_argument("--epochs", type=int, default=6, help="that are measured, of each way")
    parser.add_argument("--steps", type=int, help="of a call; default: as the job chooses")
    parser.add_argument("--settings", nargs="*", default=SMALL, help="of the run, as flags without their dashes")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="the file that gets the table")
    options = parser.parse_args()
    epochs = options.epochs + 1
    flags = ["model.weights=none", f"{options.stage}.epochs={epochs}", *options.settings]
    settings = load_settings([f"--{flag}" for flag in flags], {}).settings
    device.prepare()
    machine = device.configure(settings)
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        features = draw(Path(folder), options.images + options.validation)
        ways = {name: create(name, options, settings, machine, features) for name in (SEVERAL, ONE, TWO)}
        for _ in range(epochs):  # the first epoch of each is with its compilation
            for name, way in ways.items():
                started = time.perf_counter(), time.process_time()
                way.trainer.train_epoch()
                ended = time.perf_counter(), time.process_time()
                seconds.setdefault(name, []).append((ended[0] - started[0], ended[1] - started[1]))
        weights = {name: way.trainer.capture().weights for name, way in ways.items()}
        features.close()
    for name in (ONE, TWO) if machine.kind == "cpu" else ():
        for path, value in weights[name].items():
            assert value.tobytes() == weights[SEVERAL][path].tobytes(), f"{path} differs: {name}"
    report(options, machine, {name: times[1:] for name, times in seconds.items()})


def report(options: argparse.Namespace, machine: Device, seconds: dict[str, list[tuple[float, float]]]) -> None:
    """Write down the section, and end in the ratios."""
    steps = -(-options.images // BATCH)
    rows = []
    for name, times in seconds.items():
        wall, processor = ([kind[n] for kind in times] for n in (0, 1))
        milliseconds = harness.Spread.of(value / steps * 1e3 for value in wall)
        rows.append([name, harness.Spread.of(wall), milliseconds, harness.Spread.of(processor)])
    ratios = {
        name: harness.ratio([wall for wall, _ in seconds[name]], [wall for wall, _ in seconds[SEVERAL]])
        for name in (ONE, TWO)
    }
    for name, reach in ((ONE, ">= 1.5"), (TWO, ">= 1.9")):
        rows.append([f"{name} over several, pair by pair (reach in stage 1 on the CPU: {reach})", ratios[name], "", ""])
    header = [
        f"{options.images:,} images, threads: {machine.threads}",
        "seconds an epoch",
        "ms a step",
        "seconds of processor time an epoch",
    ]
    harness.record(f"Several steps a call: {options.stage}", header, rows, path=options.results)
    print(f"{TWO}: {ratios[TWO].median:.2f}x, {ONE}: {ratios[ONE].median:.2f}x")


def draw(folder: Path, count: int) -> Rows:
    """Return so many drawn features in a file, float32 [count, 1280]."""
    from job.data.cache_files import Rows

    features, random = Rows(folder / "features", np.float32, count, (1280,)), np.random.default_rng(7)
    for start in range(0, count, 1000):
        stop = min(start + 1000, count)
        features[slice(start, stop)] = random.gamma(0.5, 1.0, (stop - start, 1280)).astype(np.float32)
    return features


def create(name: str, options: argparse.Namespace, settings: Settings, machine: Device, features: Rows) -> Way:
    """Return one way to train: each has a model of its own, with the same weights at the start."""
    from job.model import weights
    from job.model.classifier import build
    from job.storage import open_store
    from job.training import stages
    from job.training.examples import create_examples
    from job.training.state import TrainingState

    classifier, _ = build(
        settings,
        ("cats", "dogs"),
        resumed={},
        machine=machine,
        load_weights=lambda network: weights.load_into(network.base_model, settings.model, open_store, Progress()),
    )
    size, count = settings.model.image_size, options.images + options.validation
    pixels = np.random.default_rng(7).integers(0, 256, (2 * BATCH, size, size, 3)).astype(np.uint8)
    images: Any = SimpleNamespace(
        pixels=lambda rows: pixels[rows % len(pixels)],
        manifest=SimpleNamespace(label=(np.arange(count) % 2).astype(np.int32)),
    )
    rows_of = {"train": np.arange(options.images), "validation": np.arange(options.images, count)}
    examples = create_examples(classifier, images, features, rows_of, settings=settings)[options.stage]
    classifier.set_trainable(options.stage)
    progress, state = Progress([] if name == SEVERAL else [EachStep()]), TrainingState(stage=options.stage)
    stage = getattr(settings, options.stage)
    trainer = stages.StageTrainer(stage, classifier, examples, state, progress, lambda *_, **__: None)
    if name == TWO:
        trainer._step = in_two_calls(classifier, examples, trainer.optimizer)  # noqa: SLF001
    if options.steps:
        trainer._pace = SimpleNamespace(choose=lambda _: options.steps, record=lambda *_: None)  # type: ignore[assignment]  # noqa: SLF001
    return Way(trainer, state)


def in_two_calls(classifier: Any, examples: Any, optimizer: Any) -> Callable[..., Any]:
    """Return a training step that is two calls: the gradients, and the optimizer."""
    import tensorflow as tf

    from job.training.step import compile_gradients, gradient_function

    variables = classifier.model.trainable_variables
    gradients_of = compile_gradients(gradient_function(classifier, examples, optimizer, 0.0), classifier, examples)
    specs = [tf.TensorSpec(variable.shape, tf.float32) for variable in variables]
    apply = tf.function(lambda *gradients: optimizer.apply(gradients, variables), input_signature=specs)

    def take(inputs: Any, labels: Any, seed: Any) -> Any:
        gradients, *results = gradients_of(inputs, labels, seed, len(labels))
        apply(*gradients)
        return results

    return take


if __name__ == "__main__":
    main()
