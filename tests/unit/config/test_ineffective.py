"""Settings that have no effect are found, with the reason."""

from __future__ import annotations

import pytest

from job.config.ineffective import find
from job.config.load import load_settings


def found(*flags: str, images: tuple[int, ...] = (30, 10)) -> dict[str, str]:
    """Return what is found with these flags."""
    return find(load_settings(flags, {}).settings, images)


def test_default_settings() -> None:
    """The defaults are in order, also where a stage is left out, or the labels are balanced."""
    assert {} == found() == found("--fine_tuning.epochs=0") == found(images=(5, 5))


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["warmup_epochs=10"], ["learning_rate"]),
        (["warmup_epochs=10", "schedule=cosine"], ["learning_rate", "schedule"]),
        (["min_learning_rate=1e-7"], ["min_learning_rate"]),
        (["min_learning_rate=1e-4", "learning_rate=1e-4", "schedule=linear"], ["schedule"]),
        (["patience=9"], ["patience"]),
        (["patience=1", "epochs=1"], ["patience"]),
        (["min_delta=0.1"], ["min_delta"]),
        (["epochs=0", "restore", "weight_decay=0.1"], ["restore", "weight_decay"]),
    ],
)
@pytest.mark.parametrize("stage", ["feature_extraction", "fine_tuning"])
def test_of_a_stage(stage: str, flags: list[str], names: list[str]) -> None:
    """A setting of a stage that another one overrides."""
    assert {f"{stage}.{name}" for name in names} == set(found(*(f"--{stage}.{flag}" for flag in flags)))


@pytest.mark.parametrize(
    "flags",
    [
        ["warmup_epochs=9.5", "schedule=cosine"],
        ["min_learning_rate=1e-7", "schedule=linear"],
        ["patience=8", "min_delta=0.1"],
        ["restore", "clip_norm=1", "label_smoothing=0.1", "weight_decay=0.1"],
    ],
)
def test_what_has_an_effect(flags: list[str]) -> None:
    """Nothing is said about settings that change the training."""
    assert {} == found(*(f"--fine_tuning.{flag}" for flag in flags))


@pytest.mark.parametrize(
    ("flags", "images", "names"),
    [
        (["--train.class_weight=sqrt", "--train.initial_bias=prior"], (30, 10), set()),
        (["--train.class_weight=sqrt"], (10, 10, 10), {"train.class_weight"}),
        (["--train.initial_bias=prior"], (10, 10), {"train.initial_bias"}),
        (["--train.class_weight=balanced", "--train.initial_bias=prior"], (30, 10), {"train.initial_bias"}),
    ],
)
def test_of_the_labels(flags: list[str], images: tuple[int, ...], names: set[str]) -> None:
    """Weights and bias do nothing where the labels are balanced, by their numbers or by the weights."""
    assert names == set(found(*flags, images=images))


def test_reason() -> None:
    """The reason names the setting that is in the way, or the number."""
    assert {"fine_tuning.min_delta": "fine_tuning.patience is 0"} == found("--fine_tuning.min_delta=0.1")
    assert "after 10 epochs, and it has 10" in found("--fine_tuning.patience=9")["fine_tuning.patience"]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ([], []),
        (["--augmentation.flip=horizontal", "--feature_extraction.views=6"], []),
        (["--feature_extraction.views=6"], ["feature_extraction.views"]),
        (["--augmentation.flip=both", "--feature_extraction.views=11"], ["feature_extraction.views"]),
        (
            ["--augmentation.flip=both", "--feature_extraction.views=0", "--feature_extraction.epochs=0"],
            ["feature_extraction.views"],
        ),
        (["--augmentation.mixup=0.1", "--feature_extraction.views=2"], ["feature_extraction.views"]),
        (["--augmentation.mixup=0.1", "--feature_extraction.views=0"], []),
        (["--augmentation.mixup=0.1", "--fine_tuning.batch_size=1"], ["augmentation.mixup"]),
        (
            ["--augmentation.mixup=0.1", "--fine_tuning.batch_size=1", "--fine_tuning.epochs=0"],
            ["fine_tuning.batch_size"],
        ),
    ],
)
def test_of_augmentation(flags: list[str], names: list[str]) -> None:
    """A setting of augmentation that another one overrides."""
    reasons = found(*flags)

    assert names == list(reasons)
    assert all(reasons.values())
