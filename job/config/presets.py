"""Presets: named sets of settings. A setting that is given anywhere else overrides that of the preset.

They were chosen by benchmarks/presets.py (docs/training.md has the figures).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal

Preset = Literal["none", "small-data", "fast", "accurate"]

PRESETS: Final = MappingProxyType(
    {
        "none": {},
        # A new head learns within a few hundred steps only at a higher rate; changed images stand in for more images.
        "small-data": {
            "augmentation.flip": "horizontal",
            "augmentation.rotation": "10",
            "augmentation.crop": "0.2",
            "augmentation.brightness": "0.1",
            "augmentation.contrast": "0.2",
            "feature_extraction.epochs": "20",
            "feature_extraction.learning_rate": "1e-3",
            "feature_extraction.label_smoothing": "0.1",
            "fine_tuning.label_smoothing": "0.1",
            "fine_tuning.schedule": "cosine",
            "fine_tuning.warmup_epochs": "1",
            "model.dropout": "0.2",
        },
        "fast": {
            "feature_extraction.learning_rate": "1e-3",
            "feature_extraction.patience": "2",
            "feature_extraction.restore": "true",
            "fine_tuning.epochs": "3",
            "fine_tuning.learning_rate": "3e-5",
            "fine_tuning.schedule": "cosine",
            "model.image_size": "160",
        },
        "accurate": {
            "augmentation.flip": "horizontal",
            "augmentation.crop": "0.2",
            "feature_extraction.learning_rate": "1e-3",
            "fine_tuning.epochs": "20",
            "fine_tuning.learning_rate": "3e-5",
            "fine_tuning.schedule": "cosine",
            "fine_tuning.warmup_epochs": "1",
            "fine_tuning.weight_decay": "1e-4",
        },
    }
)
"""Preset -> dotted name -> value, as text like that of every other source."""
