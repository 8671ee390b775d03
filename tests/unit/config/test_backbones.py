"""What is known of the backbones without TensorFlow."""

from __future__ import annotations

import pytest

from job.config.backbones import BACKBONES, feature_size


@pytest.mark.parametrize(
    ("backbone", "alpha", "size"),
    [
        ("MobileNetV2", 0.35, 1280),
        ("MobileNetV2", 1.0, 1280),
        ("MobileNetV2", 1.3, 1664),
        ("MobileNetV2", 1.4, 1792),
        ("MobileNetV3Small", 0.75, 432),
        ("MobileNetV3Small", 1.0, 576),
        ("MobileNetV3Large", 0.75, 720),
        ("ResNet50", 1.0, 2048),
    ],
)
def test_feature_size(backbone: str, alpha: float, size: int) -> None:
    """The channels are multiples of 8; those of MobileNetV2 grow with alpha above 1 only."""
    assert size == feature_size(backbone, alpha)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_have_an_origin(backbone: str) -> None:
    """The model card names where the weights come from, and under which licence."""
    facts = BACKBONES[backbone]

    assert facts.weights_origin.startswith("https://github.com/")
    assert facts.weights_license.startswith("the ")
