"""Rehearses a run on a few of its images: its steps are measured on this machine, and the seconds of each part follow.

The steps are those of the run: the feature pass, the training loop, the scoring, the export and its verification.
Nothing is published. The weights are random, since the time of a step does not depend on them.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from job.config.settings import STAGES, runs_backbone, view_count
from job.data.cache import part_bytes
from job.data.dataset import RANGE
from job.data.estimates import Memory, Seconds
from job.export import saved_model
from job.export.verification import Scorer
from job.model import weights
from job.observability.progress import Progress
from job.runtime import device
from job.runtime.memory import exhaustion_converted
from job.training import features, prediction, stages, views
from job.training.examples import create_examples
from job.training.state import TrainingState
from job.trials.sample import open_sample, save_nothing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from job.config.settings import Settings, StageName, StageSettings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.data.deep_survey import Effort
    from job.data.estimates import Estimates
    from job.data.manifest import Manifest
    from job.data.prepare import Prepared
    from job.model.classifier import Classifier
    from job.runtime.device import Device
    from job.storage import OpenStore
    from job.training.examples import Examples

SAMPLE = 4 * RANGE
"""Images that are rehearsed with, if there are so many; larger batches repeat them."""

_STEPS, _HEAD_STEPS = 4, 40
"""Steps of the measured epoch: those that train the head alone on stored features take milliseconds."""

_LEARNING_RATE = 1e-8
"""Too low for a loss that is not finite, with any settings."""


class Decoded(NamedTuple):
    """What is known of this machine once every image was decoded on it.

    Attributes:
        machine: the device, as configured.
        decoding: what the download and the decoding took.
        import_seconds: of TensorFlow.
    """

    machine: Device
    decoding: Effort
    import_seconds: float


class StageCost(NamedTuple):
    """What a stage takes, in seconds.

    Attributes:
        start: once: the computations are traced and compiled.
        image: an image in a training step.
        scored_image: an image in the validation.
        epoch: the end of each epoch, beside its images.
    """

    start: float = 0.0
    image: float = 0.0
    scored_image: float = 0.0
    epoch: float = 0.0

    def seconds(self, epochs: int, train: int, validation: int) -> float:
        """Return the seconds of the stage, for the numbers of epochs and of images."""
        return self.start + epochs * (train * self.image + validation * self.scored_image + self.epoch)


class Costs(NamedTuple):
    """What the parts of a run take, in seconds.

    Attributes:
        startup: imports, and the model.
        features_start: once: the feature pass is compiled.
        features: the features of an image; 0 if none are needed.
        stages: by stage.
        scored_image: an image in the evaluation.
        export: the export, and its verification with the images of the sample.
        verified_image: an image in the verification, which is on the CPU.
        sample: number of images of the sample.
    """

    startup: float
    features_start: float
    features: float
    stages: dict[StageName, StageCost]
    scored_image: float
    export: float
    verified_image: float
    sample: int

    def seconds(self, settings: Settings, prepared: Prepared, decoded: Decoded) -> Seconds:
        """Return the seconds of a run.

        Args:
            settings: of the run.
            prepared: its usable images and their splits.
            decoded: what is known of this machine. On the CPU, the features compete with the decoding.
        """
        machine, decoding = decoded.machine, decoded.decoding
        train, validation, test = (len(prepared.rows_of[name]) for name in ("train", "validation", "test"))
        features_seconds = len(prepared.usable) * self.features
        views_seconds = view_count(settings) * train * self.features
        busy = decoding.cpu_seconds / machine.threads + features_seconds if machine.kind == "cpu" else features_seconds
        verified = min(validation + test, settings.export.verify_images)
        more = max(0, verified - self.sample) * self.verified_image
        return Seconds(
            device=machine.name,
            startup=round(self.startup, 1),
            ingest=round(self.features_start + max(decoding.seconds, busy) + views_seconds, 1),
            **{
                name: round(cost.seconds(getattr(settings, name).epochs, train, validation), 1)
                for name, cost in self.stages.items()
            },
            evaluation=round((validation + test) * self.scored_image + self.export + more, 1),
        )


@exhaustion_converted()
def rehearse(
    settings: Settings,
    prepared: Prepared,
    open_store: OpenStore,
    decoded: Decoded,
    estimates: Estimates,
    progress: Progress,
) -> Estimates:
    """Take a few steps of everything that a run does; return the estimates with its seconds, memory and cache.

    Args:
        settings: of the run.
        prepared: its usable images and their splits.
        open_store: opens the stores.
        decoded: what is known of this machine.
        estimates: without a rehearsal.
        progress: receives the events.

    Raises:
        errors.FinetuneError: as a run, of its device, its data and its cache.
    """
    started, machine, sample = time.monotonic(), decoded.machine, _sample(prepared)
    model = settings.model.model_copy(update={"weights": "none"})
    opened = open_sample(
        settings.model_copy(update={"model": model}),
        sample,
        open_store,
        machine,
        keeps_pixels=estimates.keeps_pixels,
        load_weights=lambda network: weights.load_into(network.base_model, model, open_store, Progress()),
    )
    with progress.phase("rehearse", len(STAGES) + 2, "parts") as phase, opened as (classifier, _, images, cache):
        startup = decoded.import_seconds + time.monotonic() - started
        state = TrainingState()
        features_start, features_image = _measure_features(settings, classifier, images, cache, state)
        phase.advance()
        rows = np.flatnonzero(images.usable)
        split = {"train": rows, "validation": rows}
        augmented = None
        if cache.views is not None:
            views.extract_views(augmented := views.Views(cache, settings, rows), classifier, images, state, Progress())
        examples = create_examples(
            classifier, images, cache.features, split, settings=settings, views=augmented, frozen=cache.frozen
        )
        stage_costs = {}
        for name in STAGES:
            stage_costs[name] = _measure_stage(name, settings, classifier, examples[name], state)
            phase.advance()
        export, verified_image = _measure_export(
            classifier, images, rows, cache.folder / "model", max_pixels=settings.input.max_pixels
        )
        costs = Costs(
            startup=startup,
            features_start=features_start,
            features=features_image,
            stages=stage_costs,
            scored_image=_scored_image_seconds(examples["fine_tuning"], rows, state),
            export=export,
            verified_image=verified_image,
            sample=len(rows),
        )
        phase.advance()
    updates = {
        "seconds": costs.seconds(settings, prepared, decoded),
        "memory": _peaks(estimates.memory, machine),
        # Without the model, the shape of the frozen part's outputs is unknown.
        "cache_needed_bytes": estimates.cache_needed_bytes + _frozen_bytes(classifier, len(prepared.usable)),
    }
    return estimates.model_copy(update=updates)


def _frozen_bytes(classifier: Classifier, images: int) -> int:
    """Return the bytes that the cached outputs of the frozen part take; 0 if none are cached."""
    shape = classifier.frozen_part.shape if classifier.frozen_part else ()
    return part_bytes(images, encoded_bytes=0, image_size=0, feature_size=0, frozen_shape=shape)["frozen"]


def _sample(prepared: Prepared) -> Manifest:
    """Return a few of the usable images, spread evenly over the names."""
    count = len(prepared.usable)
    return prepared.usable.take(np.unique(np.linspace(0, count - 1, min(SAMPLE, count)).astype(np.intp)))


def _measure_features(
    settings: Settings, classifier: Classifier, images: Dataset, cache: Cache, state: TrainingState
) -> tuple[float, float]:
    """Make the pass over the sample; return the seconds of the compilation, and those of an image's features."""
    if not settings.feature_extraction.epochs:
        collections.deque(images.ingest(Progress()), maxlen=0)
        return 0.0, 0.0
    started = time.monotonic()
    image = features.extract(classifier, images, cache, state, Progress()) or 0.0
    seconds = time.monotonic() - started
    return max(0.0, seconds - len(images.manifest) * image), image


def _measure_stage(
    name: StageName, settings: Settings, classifier: Classifier, examples: Examples, state: TrainingState
) -> StageCost:
    """Train two short epochs: the first one with the compilation, the second one without."""
    stage: StageSettings = getattr(settings, name)
    if not stage.epochs:
        return StageCost()
    steps = _HEAD_STEPS if name == "feature_extraction" and not runs_backbone(settings) else _STEPS
    rows = np.resize(examples.train, steps * stage.batch_size)
    short = dataclasses.replace(examples, train=rows, validation=rows[: 2 * stage.batch_size])
    state.enter(name)
    classifier.set_trainable(name)
    constant = {"learning_rate": _LEARNING_RATE, "schedule": "constant", "warmup_epochs": 0.0, "patience": 0}
    stage = stage.model_copy(update={"epochs": 2, **constant})
    times = [time.monotonic()]
    trainer = stages.StageTrainer(stage, classifier, short, state, Progress(), save_nothing)
    for _ in range(stage.epochs):
        trainer.train_epoch()
        times.append(time.monotonic())
    first, second = np.diff(times).tolist()
    epoch = state.history[-1]
    training = len(rows) / epoch.images_per_second
    return StageCost(
        start=max(0.0, first - second),
        image=training / len(rows),
        scored_image=(epoch.seconds - training) / len(short.validation),
        epoch=second - epoch.seconds,
    )


def _scored_image_seconds(examples: Examples, rows: NDArray[np.intp], state: TrainingState) -> float:
    """Return the seconds of an image in the evaluation; the first pass, with the compilation, is not counted."""
    for _ in range(2):
        started = time.monotonic()
        prediction.predict(examples, rows, RANGE, state, Progress(), int)
        seconds = time.monotonic() - started
    return seconds / len(rows)


def _measure_export(
    classifier: Classifier, images: Dataset, rows: NDArray[np.intp], folder: Path, *, max_pixels: int
) -> tuple[float, float]:
    """Export the model, and have another process score the sample; return the seconds, and those of an image of it.

    The other process reads an image when it can use it: its batches show in the times at which images are read.
    """
    read_at: list[float] = []

    def encoded() -> Iterator[bytes]:
        for row in rows.tolist():
            read_at.append(time.monotonic())
            yield images.encoded(row)

    started = time.monotonic()
    with Scorer() as scorer:
        saved_model.save(classifier, folder, max_pixels=max_pixels)
        scorer.score(folder, encoded())
    seconds = time.monotonic() - started
    batch = min(RANGE, len(rows) - 1)
    return seconds, (read_at[-1] - read_at[-1 - batch]) / batch if batch else 0.0


def _peaks(memory: Memory, machine: Device) -> Memory:
    """Return the memory with the peaks of this process. The verification's stays an estimate.

    Linux counts the memory of the process that starts another one among the peak of the other one.
    """
    peaks = device.memory_peaks(machine)
    return memory.model_copy(
        update={
            "training_bytes": peaks["resident_peak_bytes"],
            "gpu_bytes": peaks["device_peak_bytes"],
            "measured": True,
        }
    )
