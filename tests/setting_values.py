"""A strategy for the values of each setting, and the mistakes that loading reports."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from job.config.load import load_settings
from job.errors import SettingsError

WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Z"], exclude_characters="/"), min_size=1, max_size=8)
FRACTIONS = st.floats(0.01, 0.49)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False)
COUNTS = st.integers(1, 2**53)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)

# The places are such that none lies inside another.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "preset": st.just("none"),  # others set further settings
    "input.uri": st.builds("gs://pictures/{}/{}".format, WORDS, WORDS) | st.just("") | st.just("/in"),
    "input.format": st.sampled_from(["auto", "folders", "csv", "jsonl"]),
    "input.layout": st.sampled_from(["auto", "classes", "splits"]),
    "input.exclude": st.lists(st.from_regex(r"[a-z*?/.\[\]-]{1,9}", fullmatch=True), max_size=3),
    "input.image_column": WORDS | st.just(""),
    "input.label_column": WORDS | st.just(""),
    "input.split_column": WORDS | st.just(""),
    "input.group_column": st.sampled_from(["", "", "", "patient"]),
    "input.group_pattern": st.sampled_from(["", "patient-([0-9]+)", "^[^/]+"]),
    "input.validation_fraction": FRACTIONS,
    "input.test_fraction": FRACTIONS,
    "input.max_bad_fraction": st.floats(0, 1),
    "input.damaged": st.sampled_from(["quarantine", "warn"]),
    "input.near_duplicate_distance": st.integers(0, 7),
    "input.max_leaking_duplicates": COUNTS | st.none(),
    "input.max_pixels": COUNTS,
    "output.uri": st.builds("gs://out/{}".format, WORDS) | st.builds("/out/{}".format, WORDS.filter(str.isalnum)),
    "storage.user_project": WORDS,
    "storage.anonymous": st.booleans(),
    "storage.retry_seconds": st.floats(0, 1e6),
    "run.id": IDS | st.just(""),
    "run.job_uid": IDS | st.just(""),
    "run.job_name": WORDS,
    "run.namespace": WORDS,
    "run.node": WORDS,
    "run.image": WORDS,
    "run.seed": st.integers(0, 2**32 - 1),
    "run.reproducible": st.booleans(),
    "model.backbone": st.sampled_from(["MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"]),
    "model.alpha": st.sampled_from([0.75, 1.0]),
    "model.image_size": st.integers(32, 1024),
    "model.weights": st.sampled_from(["imagenet", "none", "/weights.h5", "gs://weights/w.h5"]),
    "model.weights_dir": st.just("/somewhere"),
    "model.head_units": COUNTS,
    "model.dropout": st.floats(0, 1, exclude_max=True),
    "feature_extraction.epochs": COUNTS,
    "feature_extraction.learning_rate": POSITIVE,
    "feature_extraction.batch_size": COUNTS,
    "feature_extraction.schedule": st.sampled_from(["constant", "cosine", "linear"]),
    "feature_extraction.warmup_epochs": st.floats(0, 1e3),
    "feature_extraction.min_learning_rate": st.just(0.0),
    "feature_extraction.patience": st.integers(0, 2**53),
    "feature_extraction.min_delta": st.floats(0, 1e3),
    "feature_extraction.restore": st.booleans(),
    "feature_extraction.weight_decay": st.floats(0, 1e3),
    "feature_extraction.clip_norm": st.floats(0, 1e3),
    "feature_extraction.label_smoothing": st.floats(0, 1, exclude_max=True),
    "feature_extraction.views": st.integers(0, 1000),
    "fine_tuning.epochs": st.integers(0, 9),
    "fine_tuning.learning_rate": POSITIVE,
    "fine_tuning.batch_size": COUNTS,
    "fine_tuning.schedule": st.sampled_from(["constant", "cosine", "linear"]),
    "fine_tuning.warmup_epochs": st.floats(0, 1e3),
    "fine_tuning.min_learning_rate": st.just(0.0),
    "fine_tuning.patience": st.integers(0, 2**53),
    "fine_tuning.min_delta": st.floats(0, 1e3),
    "fine_tuning.restore": st.booleans(),
    "fine_tuning.weight_decay": st.floats(0, 1e3),
    "fine_tuning.clip_norm": st.floats(0, 1e3),
    "fine_tuning.label_smoothing": st.floats(0, 1, exclude_max=True),
    "fine_tuning.from_layer": WORDS | st.just(""),
    "fine_tuning.cache_frozen": st.just(False),  # true conflicts with an empty from_layer
    "train.class_weight": st.sampled_from(["none", "sqrt", "balanced"]),
    "train.initial_bias": st.sampled_from(["zero", "prior"]),
    "augmentation.flip": st.sampled_from(["none", "horizontal", "vertical", "both"]),
    "augmentation.rotation": st.floats(0, 180),
    **{f"augmentation.{name}": st.floats(0, 0.9) for name in ("zoom", "shift", "crop")},
    **{f"augmentation.{name}": st.floats(0, 1) for name in ("brightness", "contrast", "mixup")},
    "keep": st.sampled_from(["best", "last"]),
    "device.require_gpu": st.booleans(),
    "device.gpus": st.just("all") | COUNTS,
    "device.threads": COUNTS | st.none(),
    "device.mixed_precision": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    "device.xla": st.booleans() | st.none(),
    "device.memory_growth": st.booleans() | st.none(),
    "device.stall_minutes": POSITIVE,
    "cache.dir": st.sampled_from(["", "/cache"]),
    "cache.max_bytes": st.integers(0, 2**53) | st.none(),
    "cache.volume_limit_bytes": st.integers(0, 2**53) | st.none(),
    "checkpoint.interval": POSITIVE,
    "checkpoint.takeover": POSITIVE,
    "gate.min_accuracy": st.floats(0, 1),
    "gate.min_auc": st.floats(0, 1),
    "gate.min_recall": st.floats(0, 1),
    "gate.no_worse_than_latest": st.floats(0, 1, exclude_max=True) | st.none(),
    "export.formats": st.lists(st.sampled_from(["tflite", "tflite_int8", "onnx"]), unique=True).map(sorted),
    "export.verify_images": COUNTS,
    "report.enabled": st.booleans(),
    "report.max_images": st.integers(0, 1000),
    "report.gpu_price_per_hour": st.floats(0, 1e6) | st.none(),
    "report.label_errors": st.booleans(),
    "events.enabled": st.booleans(),
    "events.pod_name": WORDS,
    "events.pod_uid": WORDS,
    "workers.count": st.just(1),
    "workers.index": st.just(0),
    "workers.addresses": st.lists(st.builds("{}:{}".format, IDS, st.integers(1, 2**16 - 1)), max_size=3, unique=True),
    "log.format": st.sampled_from(["auto", "console", "json"]),
    "log.level": st.sampled_from(["debug", "info", "warning", "error"]),
    "log.tensorboard": st.booleans(),
}


def mistakes_of(*flags: str, environment: dict[str, str] | None = None, required: tuple[str, ...] = ()) -> list[str]:
    """Return the lines of the error that these settings raise."""
    with pytest.raises(SettingsError) as raised:
        load_settings(flags, environment or {}, required=required)
    return [line.strip() for line in raised.value.message.splitlines()[1:]]
