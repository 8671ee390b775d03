"""The phases of training: the device, both stages, and what is only known while they run."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from job.config.settings import STAGES
from job.phases.context import RunContext, optional
from job.runs import download
from job.runs.latest import PublishedFiles
from job.runs.published import open_warm_start
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from job.config.settings import StageName
    from job.data.prepare import Prepared
    from job.model.classifier import Classifier, Network
    from job.model.warm_start import PublishedModel
    from job.model.weights import Provenance as Weights
    from job.training.examples import Examples
    from job.training.state import Arrays, EpochResult, TrainingState


class Trained(NamedTuple):
    """The end of training.

    Attributes:
        state: of the training.
        kept_epoch: the epoch whose weights are published.
        end_weights: the weights at the end of each stage.
    """

    state: TrainingState
    kept_epoch: EpochResult
    end_weights: dict[StageName, Arrays]


def configure_device(context: RunContext) -> device.Device:
    """Import TensorFlow and configure the device. The import takes seconds, so a published run never gets here."""
    previous = context.checkpoints.facts
    device.prepare()
    machine = device.configure(context.loaded.settings, before=previous, notify=context.progress.event)
    context.progress.event("device.configured", **dataclasses.asdict(machine))
    if changes := machine.changes(previous):
        note = "the result may differ in its last bits"
        context.progress.event("device.changed", severity="warning", **changes, note=note)
    context.checkpoints.facts = machine.facts()
    context.job.gpus = len(machine.gpus)
    return machine


@contextlib.contextmanager
def warm_start(context: RunContext, state: TrainingState) -> Iterator[PublishedModel | None]:
    """Yield the published model that training starts from; None if `model.weights` names none.

    Args:
        context: of the run.
        state: keeps the model's run: `latest` may name another one when the run resumes.

    Raises:
        errors.DataError: there is no such run, or its model differs from what was published.
    """
    settings = context.loaded.settings
    if not settings.model.is_warm_start:
        yield None
        return
    from job.model.warm_start import PublishedModel

    store = context.open_store(state.warm_start) if state.warm_start else open_warm_start(settings, context.open_store)
    with tempfile.TemporaryDirectory(prefix="warm-start-") as folder:
        path, labels = download.download_keras_model(store, Path(folder))
        state.warm_start = store.uri
        yield PublishedModel(
            uri=store.uri,
            manifest_sha256=download.manifest_sha256(store),
            labels=labels,
            path=path,
            trained_on=PublishedFiles(store).training_content(),
        )


def weight_loader(
    context: RunContext, labels: tuple[str, ...], published: PublishedModel | None
) -> Callable[[Network], Weights]:
    """Return a function that sets the weights that a new run starts from.

    Args:
        context: of the run.
        labels: in the order of the probabilities.
        published: the model of a warm start.
    """
    from job.model import warm_start, weights

    def load(network: Network) -> Weights:
        if published:
            return warm_start.load_into(network, labels, published, context.progress)
        settings = context.loaded.settings.model
        return weights.load_into(network.base_model, settings, context.open_store, context.progress)

    return load


def plan_training(context: RunContext, prepared: Prepared, feature_seconds: float | None) -> None:
    """Report the epochs of both stages, and estimate those of stage 2.

    Args:
        context: of the run.
        prepared: the split.
        feature_seconds: that the features of an image took; None if none were computed.
    """
    epochs = {stage: getattr(context.loaded.settings, stage).epochs for stage in STAGES}
    estimates = {}
    if feature_seconds is not None:
        train, validation = (len(prepared.rows_of[name]) for name in ("train", "validation"))
        # The backward pass takes about twice as long as the forward pass.
        estimates["fine_tuning"] = round(feature_seconds * (3 * train + validation), 1)
    context.progress.event("training.planned", epochs=epochs, epoch_seconds=estimates)


def train_stages(
    context: RunContext,
    classifier: Classifier,
    examples: Mapping[StageName, Examples],
    prepared: Prepared,
    state: TrainingState,
) -> Trained:
    """Train both stages, and load the weights that `settings.keep` selects."""
    from job.training import stages

    settings = context.loaded.settings
    context.retry.is_training.set()
    for stage in STAGES[STAGES.index(state.stage) :]:
        with context.timing.part(stage):
            stages.run(
                stage,
                getattr(settings, stage),
                classifier,
                examples[stage],
                state,
                progress=context.progress,
                save=context.checkpoints.save,
            )
        if stage == "feature_extraction":  # only now are its features at hand
            examine_training_labels(context, classifier, examples[stage], prepared, state)
    end_weights = stages.end_weights(classifier, state)
    kept_epoch = stages.load_kept_weights(settings.keep, classifier, state)
    context.progress.event(
        "model.chosen",
        keep=settings.keep,
        stage=kept_epoch.stage,
        epoch=kept_epoch.epoch,
        epoch_total=state.epoch_total(kept_epoch),
    )
    return Trained(state, kept_epoch, end_weights)


@contextlib.contextmanager
def tensorboard_files(context: RunContext, state: TrainingState) -> Iterator[None]:
    """Write TensorBoard files while the block trains, if the settings ask for them."""
    if not context.loaded.settings.log.tensorboard:
        yield
        return
    from job.evaluation.tensorboard import TensorBoardFiles

    with context.progress.listening(TensorBoardFiles(state.history, context.run.write)):
        yield


def examine_training_labels(
    context: RunContext, classifier: Classifier, examples: Examples, prepared: Prepared, state: TrainingState
) -> None:
    """Look for label errors among the training images. The state keeps the result: a later start has no features.

    Args:
        context: of the run.
        classifier: left unchanged.
        examples: of stage 1.
        prepared: the split.
        state: at the end of stage 1.
    """
    from job.data import split
    from job.data.labels import TRAIN
    from job.evaluation import label_errors
    from job.training.cross_validation import FoldHeads, folds, has_seen_label

    settings = context.loaded.settings
    stage = settings.feature_extraction
    if not (settings.report.label_errors and stage.epochs):
        return
    with optional(context.progress, "label errors of the train split"), context.timing.part("label_errors"):
        fold = folds(split.group_hashes(prepared.usable, prepared.group_keys)[prepared.splits == TRAIN])
        labels = examples.labels[examples.train]
        heads = FoldHeads(classifier, examples, fold)
        learning_rate = stage.learning_rate * state.learning_rate_scale
        heads.train(stage, learning_rate, context.progress, check=context.checkpoints.check)
        state.label_errors = label_errors.find(labels, has_seen_label(labels, fold), heads.predict)
