"""The phases of training: the device, both stages, and what is only known while they run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple

from job.config import ineffective
from job.config.settings import STAGES, runs_backbone, view_count
from job.data import split
from job.phases.context import RunContext, optional
from job.phases.sharing import share_features, share_views

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from job.config.settings import StageName, StageSettings
    from job.data.cache import Cache
    from job.data.dataset import Dataset
    from job.data.prepare import Prepared
    from job.model.classifier import Classifier
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


def plan_training(context: RunContext, prepared: Prepared, cache: Cache, feature_seconds: float | None) -> None:
    """Report the epochs of both stages, how stage 1 augments, and the cost; warn of settings that have no effect.

    Args:
        context: of the run.
        prepared: the split.
        cache: has room for the features of augmented images if they are computed before stage 1.
        feature_seconds: that the features of an image took; None if none were computed.
    """
    settings, progress = context.loaded.settings, context.progress
    train_images = split.counts(prepared.usable, prepared.splits)[:, 0].tolist()
    if reasons := ineffective.find(settings, train_images):
        progress.event("settings.had_no_effect", severity="warning", **reasons)
    epochs = {stage: getattr(settings, stage).epochs for stage in STAGES}
    train, validation = (len(prepared.rows_of[name]) for name in ("train", "validation"))
    train_seconds = None if feature_seconds is None else round(feature_seconds * train, 1)
    estimates = {}
    if runs_backbone(settings) and cache.needs_features:
        if train_seconds is not None:
            estimates["feature_extraction"] = train_seconds
        reason = "feature_extraction.views is 0: the backbone runs on each image in every epoch"
        progress.event("views.planned", views=0, bytes=0, epoch_seconds=train_seconds, reason=reason)
    elif cache.views is not None:
        views = view_count(settings)
        seconds = None if train_seconds is None else round(views * train_seconds, 1)
        reason = f"{views} augmented versions of each image: min(feature_extraction.views, feature_extraction.epochs)"
        progress.event("views.planned", views=views, bytes=cache.facts["view_bytes"], seconds=seconds, reason=reason)
    if feature_seconds is not None:
        # The backward pass takes about twice as long as the forward pass.
        estimates["fine_tuning"] = round(feature_seconds * (3 * train + validation), 1)
    progress.event("training.planned", epochs=epochs, epoch_seconds=estimates)


def examples_of(
    context: RunContext,
    classifier: Classifier,
    images: Dataset,
    cache: Cache,
    prepared: Prepared,
    state: TrainingState,
) -> dict[StageName, Examples]:
    """Return the examples of each stage. With augmentation, compute the features of augmented images for stage 1.

    Args:
        context: of the run.
        classifier: with its pretrained weights.
        images: the data, after the pass over them.
        cache: has the features; those of augmented images are written to it.
        prepared: the split.
        state: at the start of training.
    """
    from job.training.examples import create_examples

    settings, progress, views = context.loaded.settings, context.progress, None
    if cache.views is not None:
        from job.training.views import Views, extract_views

        started, views = time.monotonic(), Views(cache, settings, prepared.rows_of["train"])
        with context.timing.part("ingest"):
            check, replicas, batch = context.check, context.replicas, state.feature_batch
            extract_views(views, classifier, images, state, progress, check=check, replicas=replicas)
            if state.feature_batch != batch:  # the features of the unchanged images were computed again
                share_features(context, images, cache)
            share_views(context, views)
        progress.event("views.computed", views=views.count, seconds=round(time.monotonic() - started, 1))
    examples = create_examples(
        classifier,
        images,
        cache.features,
        prepared.rows_of,
        settings=settings,
        views=views,
        frozen=cache.frozen,
    )
    return {stage: dataclasses.replace(data, replicas=context.replicas) for stage, data in examples.items()}


def train_stages(
    context: RunContext,
    classifier: Classifier,
    examples: Mapping[StageName, Examples],
    prepared: Prepared,
    state: TrainingState,
) -> Trained:
    """Train both stages, and load the weights that `settings.keep` selects."""
    from job.training import kept_weights, stages

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
        if stage == "feature_extraction":
            if not settings.workers.index:  # only now are its features at hand
                examine_training_labels(context, classifier, examples[stage], prepared, state)
            context.wait_for_workers()
    end_weights = kept_weights.end_weights(classifier, state)
    last_stage: StageSettings = getattr(settings, state.history[-1].stage)
    kept_epoch = kept_weights.load_kept_weights(settings.keep, classifier, state, last_stage)
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
    from job.data.labels import TRAIN
    from job.evaluation import label_errors
    from job.training import early_stopping
    from job.training.cross_validation import FoldHeads, folds, has_seen_label

    settings = context.loaded.settings
    stage = settings.feature_extraction
    if not (settings.report.label_errors and stage.epochs):
        return
    with optional(context.progress, "label errors of the train split"), context.timing.part("label_errors"):
        fold = folds(split.group_hashes(prepared.usable, prepared.group_keys)[prepared.splits == TRAIN])
        labels = examples.labels[examples.train]
        heads = FoldHeads(classifier, examples, fold)
        heads.train(
            stage,
            stage.learning_rate * state.learning_rate_scale,
            context.progress,
            epochs=early_stopping.ending_epoch(stage, state.results("feature_extraction")).epoch,
            check=context.check,
        )
        state.label_errors = label_errors.find(labels, has_seen_label(labels, fold), heads.predict)
