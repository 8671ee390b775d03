"""Settings that have no effect beside the others: a run warns of them, and `finetune validate` lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.config.settings import STAGES, FeatureExtractionSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from job.config.settings import Settings, StageName, StageSettings, TrainSettings


def find(settings: Settings, training_images: Sequence[int]) -> dict[str, str]:
    """Return setting -> reason for those that were set and have no effect.

    Args:
        settings: of the run.
        training_images: of each label; empty if the data cannot be split.
    """
    found = [fact for stage in STAGES for fact in _of_stage(stage, getattr(settings, stage))]
    return dict([*found, *_of_augmentation(settings), *_of_labels(settings.train, training_images)])


def _of_stage(stage: StageName, settings: StageSettings) -> Iterator[tuple[str, str]]:
    if not settings.epochs:
        for name, field in type(settings).model_fields.items():
            if name != "epochs" and getattr(settings, name) != field.default:
                yield f"{stage}.{name}", f"{stage}.epochs is 0"
        return
    if settings.warmup_epochs >= settings.epochs:
        reason = f"the warm-up of {settings.warmup_epochs:g} epochs takes all {settings.epochs} epochs of the stage"
        yield f"{stage}.learning_rate", f"it is not reached: {reason}"
        if settings.schedule != "constant":
            yield f"{stage}.schedule", reason
    if settings.min_learning_rate and settings.schedule == "constant":
        yield f"{stage}.min_learning_rate", f"{stage}.schedule is constant"
    if settings.schedule != "constant" and settings.min_learning_rate == settings.learning_rate:
        yield f"{stage}.schedule", f"{stage}.min_learning_rate is the learning rate"
    if settings.patience >= max(1, settings.epochs - 1):
        reason = f"without any improvement the stage ends after {settings.patience + 1} epochs, and it has"
        yield f"{stage}.patience", f"{reason} {settings.epochs}"
    if settings.min_delta and not settings.patience:
        yield f"{stage}.min_delta", f"{stage}.patience is 0"


def _of_augmentation(settings: Settings) -> Iterator[tuple[str, str]]:
    stage, augmentation = settings.feature_extraction, settings.augmentation
    if stage.epochs and stage.views != FeatureExtractionSettings().views:
        if not augmentation.enabled:
            yield "feature_extraction.views", "augmentation is off"
        elif stage.views and not augmentation.changes_images:
            yield "feature_extraction.views", "mixup alone blends the features of the unchanged images"
        elif stage.views > stage.epochs:
            yield "feature_extraction.views", f"the stage has {stage.epochs} epochs, and as many versions are made"
    if augmentation.mixup:
        for name in STAGES:
            if getattr(settings, name).epochs and getattr(settings, name).batch_size == 1:
                yield "augmentation.mixup", f"a batch of {name} has one image: there is no other one to blend it with"


def _of_labels(settings: TrainSettings, images: Sequence[int]) -> Iterator[tuple[str, str]]:
    equal = "every label has the same number of training images"
    if settings.class_weight != "none" and len(set(images)) == 1:
        yield "train.class_weight", equal
    if settings.initial_bias != "zero" and len(set(images)) == 1:
        yield "train.initial_bias", equal
    elif settings.initial_bias != "zero" and settings.class_weight == "balanced":
        yield "train.initial_bias", "with train.class_weight: balanced the weighted shares of the labels are equal"
