"""The learning-rate range test: the loss of each stage while its learning rate rises from step to step.

The steps are those of the run, on images of its train split in the order of its epochs, with its weights, optimizer and
loss. Nothing is kept.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from job import errors
from job.config.settings import STAGES
from job.data import estimates
from job.data.labels import TRAIN
from job.observability.progress import Progress
from job.phases.weights import warm_start, weight_loader
from job.runtime.memory import exhaustion_converted
from job.training import features, imbalance, stages, views
from job.training.examples import create_examples
from job.training.prediction import predict, prefetch
from job.training.range_test import Curve
from job.training.state import TrainingState
from job.trials.sample import open_sample, save_nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from job.config.settings import Settings, StageName, StageSettings
    from job.data.manifest import Manifest
    from job.data.prepare import Prepared
    from job.model.classifier import Classifier
    from job.runtime.device import Device
    from job.storage import OpenStore
    from job.training.examples import Examples

LOWEST, HIGHEST = 1e-7, 1.0
"""Learning rates of the first and of the last step."""


@exhaustion_converted()
def find(
    settings: Settings,
    prepared: Prepared,
    open_store: OpenStore,
    machine: Device,
    progress: Progress,
    *,
    steps: int,
) -> list[Curve]:
    """Take so many steps of each stage that has epochs, at rising learning rates, and return the losses.

    Stage 2 starts from the head that stage 1 trains, with its own settings, on the images of the test.

    Args:
        settings: of the run.
        prepared: its usable images and their splits.
        open_store: opens the stores.
        machine: the device, as configured.
        progress: receives the events.
        steps: of each stage, at most.

    Raises:
        errors.FinetuneError: as a run, of its device, its data, its weights and its cache.
    """
    images_needed = steps * max(getattr(settings, stage).batch_size for stage in _stages(settings))
    sample, counts = _sample(prepared, settings.run.seed, images_needed)
    curves = []
    with _opened(settings, sample, counts, open_store, machine, progress) as (classifier, examples):
        for stage in _stages(settings):
            chosen = getattr(settings, stage)
            curves.append(_curve(stage, chosen, classifier, examples[stage], progress, steps=steps))
            if stage == "feature_extraction" and settings.fine_tuning.epochs:
                _train_head(chosen, classifier, examples[stage], progress)
    return curves


@contextlib.contextmanager
def _opened(
    settings: Settings,
    sample: Manifest,
    counts: NDArray[np.intp],
    open_store: OpenStore,
    machine: Device,
    progress: Progress,
) -> Iterator[tuple[Classifier, dict[StageName, Examples]]]:
    """Build the model as a new run does, and make the pass over the sample.

    Args:
        settings: of the run.
        sample: the images.
        counts: training images of each label, int [labels], of which the sample may be a part.
        open_store: opens the stores.
        machine: the device.
        progress: receives the events.
    """
    keeps_pixels = estimates.estimate(settings, sample).keeps_pixels
    class_weights = imbalance.class_weights(settings.train.class_weight, counts)
    with contextlib.ExitStack() as stack:
        published = stack.enter_context(warm_start(settings, open_store, TrainingState()))
        load = weight_loader(settings.model, sample.labels, published, open_store, progress)
        opened = open_sample(settings, sample, open_store, machine, keeps_pixels=keeps_pixels, load_weights=load)
        classifier, weights, images, cache = stack.enter_context(opened)
        if cache.needs_features or cache.frozen is not None:
            features.extract(classifier, images, cache, TrainingState(), progress)
        else:
            collections.deque(images.ingest(progress), maxlen=0)
        rows = np.flatnonzero(images.usable)
        if not len(rows):
            raise errors.DataError(
                f"none of the {len(sample)} images of the test can be decoded",
                remedy="finetune validate --deep lists what cannot be used",
            )
        split = {"train": rows, "validation": rows[:1]}  # the loss of the validation has no part in the test
        augmented = None
        if cache.views is not None:
            augmented = views.Views(cache, settings, rows)
            views.extract_views(augmented, classifier, images, TrainingState(), progress)
        examples = create_examples(
            classifier, images, cache.features, split, settings=settings, views=augmented, frozen=cache.frozen
        )
        if settings.train.initial_bias == "prior" and weights.has_new_head:
            classifier.output.bias.assign(imbalance.initial_bias(counts, class_weights))
        yield (
            classifier,
            {stage: dataclasses.replace(data, class_weights=class_weights) for stage, data in examples.items()},
        )


def _stages(settings: Settings) -> list[StageName]:
    return [stage for stage in STAGES if getattr(settings, stage).epochs]


def _sample(prepared: Prepared, seed: int, images: int) -> tuple[Manifest, NDArray[np.intp]]:
    """Return the first images of the train split in the order of stage 1, at most so many.

    With them the number of images of each label in the whole split, int [labels]: the sample may lack a rare label.
    """
    train = np.flatnonzero(prepared.splits == TRAIN)
    sample = train[stages.order(seed, STAGES[0], 0, len(train))[:images]]
    counts = np.bincount(prepared.usable.label[train], minlength=len(prepared.usable.labels))
    return prepared.usable.take(np.sort(sample)), counts


def _curve(
    stage: StageName,
    settings: StageSettings,
    classifier: Classifier,
    examples: Examples,
    progress: Progress,
    *,
    steps: int,
) -> Curve:
    """Take the steps of a stage; leave the weights as they were."""
    weights, state = classifier.state(), TrainingState(stage=stage)
    classifier.set_trainable(stage)
    trainer = stages.StageTrainer(settings, classifier, examples, state, Progress(), save_nothing)
    curve = Curve(stage, settings.learning_rate, [], [], diverged=False)
    before = _first_losses(settings, classifier, examples, state)
    batches = list(itertools.islice(_batches(stage, settings, examples), steps))
    with progress.phase(f"lr-find {stage}", len(batches), "steps") as phase:
        loaded = prefetch(lambda batch: examples.load_for_training(*batch), batches)
        for number, ((rows, _), (inputs, _)) in enumerate(zip(batches, loaded, strict=True)):
            rate = LOWEST * (HIGHEST / LOWEST) ** (number / max(1, steps - 1))
            trainer.optimizer.learning_rate.assign(rate)
            seed = np.array((examples.seed % 2**32, number), np.uint32).view(np.int32)
            try:
                loss = trainer.take_step((inputs, examples.labels[rows], seed))[0] / len(rows)
            except errors.NotFiniteError:  # float16: no loss scale is low enough
                loss = math.nan
            if not math.isfinite(loss):
                curve = curve._replace(diverged=True)
                break
            curve.rates.append(rate)
            curve.losses.append(loss - float(before[rows].mean()) + float(before[examples.train].mean()))
            phase.advance(learning_rate=rate, loss=loss)
            if curve.has_diverged:
                curve = curve._replace(diverged=True)
                break
    classifier.load_state(weights)
    return curve


def _first_losses(
    settings: StageSettings, classifier: Classifier, examples: Examples, state: TrainingState
) -> NDArray[np.float64]:
    """Return the training loss of each image before the first step, by row; NaN for rows that are not trained on."""
    logits = predict(examples, examples.train, settings.batch_size, state, Progress(), int)
    losses = classifier.losses(
        tf.constant(logits),
        tf.constant(examples.labels[examples.train]),
        class_weights=examples.class_weights,
        label_smoothing=settings.label_smoothing,
    )
    found = np.full(len(examples.labels), np.nan)
    found[examples.train] = losses.numpy()
    return found


def _batches(stage: StageName, settings: StageSettings, examples: Examples) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Yield the rows of each batch and its epoch, one epoch after the other, as a run takes them."""
    total = len(examples.train)
    for epoch in itertools.count():
        rows = examples.train[stages.order(examples.seed, stage, epoch, total)]
        size = settings.batch_size
        yield from ((rows[start : start + size], epoch) for start in range(0, total, size))


def _train_head(settings: StageSettings, classifier: Classifier, examples: Examples, progress: Progress) -> None:
    """Train the head as stage 1 does: in all of its epochs, for the validation images have no part in the test."""
    plain = settings.model_copy(update={"patience": 0, "restore": False})
    with progress.phase("lr-find head", None, ""):
        stages.run(
            "feature_extraction", plain, classifier, examples, TrainingState(), progress=Progress(), save=save_nothing
        )
