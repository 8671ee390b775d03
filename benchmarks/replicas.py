"""Two replicas on two logical CPU devices against one device: the same losses, the same bits twice, the cost of a step.

    python benchmarks/replicas.py

With the recipe's learning rates. A batch that is computed in two parts is rounded differently, and Adam's steps enlarge
that where a gradient is nearly zero. So two replicas are also compared with one device that computes the same parts as
micro-batches. Both have the same cores, so two replicas cannot be faster here: the ratio is what
distribution costs, in two smaller batches, more calls and the sum of the gradients. It says nothing about the speed on
several GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import harness
import numpy as np

from job.config.load import load_settings
from job.runtime import device

if TYPE_CHECKING:
    import keras

    from job.config.settings import Settings, StageName
    from job.training.strategy import Replicas

STAGES: tuple[StageName, ...] = ("feature_extraction", "fine_tuning")


def main() -> None:
    """Compare one device with two replicas, in both stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--alpha", type=float, default=0.35)
    parser.add_argument("--images", type=int, default=32, help="in a batch")
    parser.add_argument("--steps", type=int, default=8, help="of fine_tuning; five times as many of feature_extraction")
    options = parser.parse_args()
    flags = ["--model.weights=none", f"--model.alpha={options.alpha}", f"--model.image_size={options.image_size}"]
    settings = load_settings([*flags, "--device.threads=1"], {}).settings
    device.prepare()
    import tensorflow as tf

    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    machine = device.configure(settings)
    from job.training import strategy

    replicas = strategy.create(machine)
    assert replicas is not None
    rows: list[list[object]] = []
    for stage in STAGES:
        variants = [
            Variant(settings, stage, None, options),
            Variant(settings, stage, replicas, options),
            Variant(settings, stage, replicas, options),
            Variant(settings, stage, None, options, micro_batch=options.images // 2),
        ]
        steps = options.steps * (5 if stage == "feature_extraction" else 1)
        for number in range(steps):  # in turn: a drift of the machine's speed slows all of them
            for variant in variants:
                variant.step(number)
        one, two, again, parts = variants
        from_one, from_parts = two.differences(one), two.differences(parts)
        same = two.state() == again.state() and two.losses == again.losses
        ratio = harness.ratio(two.seconds[2:], one.seconds[2:])
        rows += [
            [f"{stage}: largest relative difference of the first 4 losses", f"{max(from_one[:4]):.1e}", "<= 1e-5"],
            [f"{stage}: of {steps} losses", f"{max(from_one):.1e}", ""],
            [f"{stage}: of {steps} losses, from one device in micro-batches", f"{max(from_parts):.1e}", "<= 1e-5"],
            [f"{stage}: the same bits twice", "yes" if same else "no", "yes"],
            [f"{stage}: a step of two replicas over one of one device", f"{ratio}x", ""],
        ]
    harness.record("Two replicas against one device", ["", "", "reach"], rows)


def vary(base_model: keras.Model, random: np.random.Generator) -> None:
    """Give BatchNormalization the statistics of a batch: with those of a new model, all features are nearly alike."""
    for layer in base_model.layers:
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.0
    base_model(random.uniform(-1, 1, (8, *base_model.input_shape[1:])).astype(np.float32), training=True)


class Variant:
    """A stage on one device or on two replicas, and what its steps returned."""

    def __init__(
        self,
        settings: Settings,
        stage: StageName,
        replicas: Replicas | None,
        options: argparse.Namespace,
        *,
        micro_batch: int | None = None,
    ) -> None:
        from job.model.classifier import Classifier, create_network
        from job.observability.progress import Progress
        from job.training import stages, strategy
        from job.training.examples import create_examples
        from job.training.state import TrainingState

        random, size = np.random.default_rng(0), options.image_size
        self.labels = np.arange(options.images, dtype=np.int32) % 2
        noise = random.integers(0, 128, (options.images, size, size, 3))
        pixels = (noise + 127 * self.labels[:, None, None, None]).astype(np.uint8)
        with strategy.scope(replicas):
            network = create_network(settings.model, ("dark", "light"), seed=7)
            vary(network.base_model, random)
            self._classifier = Classifier(network, ("dark", "light"), pretrained=False)
        self._classifier.set_trainable(stage)
        images: Any = SimpleNamespace(pixels=lambda rows: pixels[rows], manifest=SimpleNamespace(label=self.labels))
        self._rows = np.arange(options.images)
        features: Any = self._classifier.features(pixels).numpy()
        split = {"train": self._rows, "validation": self._rows[:1]}
        examples = create_examples(self._classifier, images, features, split, settings=settings)[stage]
        self._examples = dataclasses.replace(examples, replicas=replicas)
        chosen = getattr(settings, stage).model_copy(update={"batch_size": options.images})
        state = TrainingState(stage=stage, micro_batch=micro_batch)
        self._trainer = stages.StageTrainer(
            chosen, self._classifier, self._examples, state, Progress(), lambda *_, **__: None
        )
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, number: int) -> None:
        """Take a step."""
        inputs = self._examples.load_for_training(self._rows, 0)
        started = time.monotonic()
        loss, _ = self._trainer.take_step((inputs, self.labels, np.array([7, number], np.int32)))
        self.seconds.append(time.monotonic() - started)
        self.losses.append(loss)

    def differences(self, other: Variant) -> list[float]:
        """Return the relative difference of each loss from another's."""
        return [abs(a - b) / b for a, b in zip(self.losses, other.losses, strict=True)]

    def state(self) -> dict[str, bytes]:
        """Return the bits of all weights."""
        return {path: value.tobytes() for path, value in self._classifier.state().items()}


if __name__ == "__main__":
    main()
