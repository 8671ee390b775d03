"""Presets: named sets of settings. A setting that is given anywhere else overrides that of the preset.

benchmarks/presets.py compares them; docs/training.md has what was measured.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal

Preset = Literal["none", "small-data", "fast", "accurate"]

PRESETS: Final = MappingProxyType(
    {
        "none": {},
        # With a few images there are a few steps: the head gets a higher rate and more epochs, which cost little on
        # cached features. Stage 2 ends soon where it no longer helps.
        "small-data": {
            "augmentation.flip": "horizontal",
            "augmentation.crop": "0.2",
            "feature_extraction.epochs": "30",
            "feature_extraction.learning_rate": "1e-3",
            "feature_extraction.restore": "true",
            "fine_tuning.epochs": "15",
            "fine_tuning.learning_rate": "1e-4",
            "fine_tuning.patience": "3",
            "fine_tuning.schedule": "cosine",
            "fine_tuning.warmup_epochs": "1",
            "model.dropout": "0.3",
            "model.image_size": "288",
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
        # Many images: the recipe's own number of epochs, from higher rates that fall to zero.
        "accurate": {
            "augmentation.flip": "horizontal",
            "augmentation.crop": "0.1",
            "feature_extraction.learning_rate": "1e-3",
            "fine_tuning.learning_rate": "3e-5",
            "fine_tuning.schedule": "cosine",
            "fine_tuning.warmup_epochs": "1",
            "fine_tuning.label_smoothing": "0.1",
            "fine_tuning.weight_decay": "1e-4",
        },
    }
)
"""Preset -> dotted name -> value, as text like that of every other source."""
