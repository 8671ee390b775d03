"""Hints for names that people bring from other tools: each is right, or there is none."""

from __future__ import annotations

import re

import pytest

from job.config.hints import ELSEWHERE, did_you_mean, hint, similar
from job.config.load import load_settings
from job.config.settings import setting_fields
from job.errors import SettingsError

KINDS = ["input.uri", "run.seed", "device.require_gpu", "one.epochs", "two.epochs"]


RATES = "use --feature_extraction.learning_rate or --fine_tuning.learning_rate"
EPOCHS = "use --feature_extraction.epochs or --fine_tuning.epochs"

TYPED = {
    # what people try first
    "--lr=1e-3": RATES,
    "--epochs=5": EPOCHS,
    "--data=./flowers": "use --input.uri",
    "--out=./trained": "use --output.uri",
    "-o": "use --output.uri",
    "--seed=3": "use --run.seed",
    "--resume": "a run resumes by itself",
    "--gpu=0": "all visible GPUs are used",
    "--workers=4": "use --device.threads",
    "--num_gpus=2": "use --device.gpus",
    "--patience=3": "use --feature_extraction.patience or --fine_tuning.patience",
    "--class_weight=auto": "use --train.class_weight=balanced",
    "--fine_tuning.min_lr=1e-7": "use --fine_tuning.min_learning_rate",
    "--optimizer=sgd": "Adam trains both stages",
    "--batch-size=16": "use --feature_extraction.batch_size or --fine_tuning.batch_size",
    "--fine_tuning.lr=1e-6": "use --fine_tuning.learning_rate",
    ".": "did you mean --input.uri .?",
    "gs://my-bucket/flowers": "did you mean --input.uri gs://my-bucket/flowers?",
    # Ultralytics: yolo train data=flowers epochs=3 imgsz=640 save_dir=… pretrained=… workers=8
    "imgsz=640": "use --model.image_size",
    "epochs=3": EPOCHS,
    "--lr0=0.01": RATES,
    "--save_dir=runs": "use --output.uri",
    "device=0": "all visible GPUs are used",
    "--model=mobilenet.pt": "use --model.backbone or --model.weights",
    # Hugging Face: run_image_classification.py
    "--output_dir=out": "use --output.uri",
    "--train_dir=data": "use --input.uri",
    "--num_train_epochs=5": EPOCHS,
    "--per_device_train_batch_size=8": "use --feature_extraction.batch_size or --fine_tuning.batch_size",
    "--model_name_or_path=google/vit": "use --model.backbone or --model.weights",
    "--load_best_model_at_end": "use --keep",
    # timm and torchvision: train.py
    "--data-path=data": "use --input.uri",
    "-b": "use --feature_extraction.batch_size or --fine_tuning.batch_size",
    "-j": "use --device.threads",
    "--device=cuda": "all visible GPUs are used",
    "--amp": "use --device.mixed_precision",
    "--pretrained": "use --model.weights",
    # fastai, Keras, AI Platform
    "--bs=64": "use --feature_extraction.batch_size or --fine_tuning.batch_size",
    "--valid_pct=0.2": "use --input.validation_fraction",
    "--validation_split=0.2": "use --input.validation_fraction",
    "--job-dir=gs://b/out": "use --output.uri",
    "--fine_tune_epochs=10": "use --fine_tuning.epochs",
}
"""A word on the command line -> how the answer to it ends, or the beginning of that."""


@pytest.mark.parametrize("argument", TYPED)
def test_what_people_type(argument: str) -> None:
    """A flag, a short flag, key=value and a bare place are answered with the setting that is meant."""
    with pytest.raises(SettingsError) as caught:
        load_settings([argument], {})

    assert f": {TYPED[argument]}" in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        "momentum",
        "ema",
        "fold",
        "profile",
        "out_of_place",
        "zzz",
        "log_interval",
        "max_steps",
        "lr_backbone",
        "eval_strategy",
        "fraction",
        "model.name",
        "run.epochs",
    ],
)
def test_no_hint(name: str) -> None:
    """There is none for what does not exist here, and none that is further away than a typing error."""
    assert not hint(name, setting_fields())


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_every_hint_names_what_exists(name: str) -> None:
    """Each setting in a hint exists, and the name itself is spelt as it is searched."""
    settings = re.findall(r"--([a-z_.]*[a-z])", ELSEWHERE[name])

    assert set(settings) <= {*setting_fields(), "config"}
    assert settings or ELSEWHERE[name].startswith("a run ")
    assert re.fullmatch("[a-z0-9_]+", name)


def test_did_you_mean() -> None:
    """A misspelt name is similar to that of a setting, or to its last part; up to three are named."""
    assert ": did you mean input.uri?" == did_you_mean("Input.URL", KINDS)
    assert ": did you mean device.require_gpu?" == did_you_mean("device.require-gpu", KINDS)
    assert ": did you mean one.epochs or two.epochs?" == did_you_mean("epoch_", KINDS)
    assert ["run.seed"] == similar("sede", KINDS)
    assert ["run"] == similar("rum", ["run", "demo"])
    assert not did_you_mean("zzz", KINDS)
    assert not did_you_mean("seed", [])
