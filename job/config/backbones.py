"""Facts about the backbones that are known without TensorFlow; how they are built is in `job.model.backbones`."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

BackboneName = Literal[
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2S",
    "ResNet50",
    "ResNet50V2",
    "ConvNeXtTiny",
    "ConvNeXtSmall",
    "DenseNet121",
]
"""Names of functions in keras.applications."""

_APACHE = "the Apache License 2.0"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One backbone.

    Attributes:
        channels: of its last maps at alpha 1: the length of a feature vector.
        parameters: without the top, at alpha 1.
        activation_bytes: of all its layers but BatchNormalization in float32, for each pixel of an image, at alpha 1.
        alphas: width multipliers with published ImageNet weights; empty: the backbone has no width multiplier.
        weights_origin: where its ImageNet weights come from.
        weights_license: of these weights, as their origin or the documentation of Keras states it.
    """

    channels: int
    parameters: int
    activation_bytes: int
    alphas: tuple[float, ...] = ()
    weights_origin: str
    weights_license: str


def _mobilenet_v3(channels: int, parameters: int, activation_bytes: int) -> Facts:
    return Facts(
        channels=channels,
        parameters=parameters,
        activation_bytes=activation_bytes,
        alphas=(0.75, 1.0),
        weights_origin="https://github.com/tensorflow/models",
        weights_license=_APACHE,
    )


def _efficientnet_v2(channels: int, parameters: int, activation_bytes: int) -> Facts:
    return Facts(
        channels=channels,
        parameters=parameters,
        activation_bytes=activation_bytes,
        weights_origin="https://github.com/google/automl",
        weights_license=_APACHE,
    )


def _convnext(parameters: int, activation_bytes: int) -> Facts:
    return Facts(
        channels=768,
        parameters=parameters,
        activation_bytes=activation_bytes,
        weights_origin="https://github.com/facebookresearch/ConvNeXt",
        weights_license="the MIT License",
    )


BACKBONES: Final[Mapping[str, Facts]] = MappingProxyType(
    {
        "MobileNetV2": Facts(
            channels=1280,
            parameters=2_257_984,
            activation_bytes=1207,
            alphas=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
            weights_origin="https://github.com/tensorflow/models",
            weights_license=_APACHE,
        ),
        "MobileNetV3Small": _mobilenet_v3(576, 939_120, 315),
        "MobileNetV3Large": _mobilenet_v3(960, 2_996_352, 879),
        "EfficientNetV2B0": _efficientnet_v2(1280, 5_919_312, 909),
        "EfficientNetV2B1": _efficientnet_v2(1280, 6_931_124, 1212),
        "EfficientNetV2B2": _efficientnet_v2(1408, 8_769_374, 1309),
        "EfficientNetV2B3": _efficientnet_v2(1536, 12_930_622, 1634),
        "EfficientNetV2S": _efficientnet_v2(1280, 20_331_360, 2377),
        "ResNet50": Facts(
            channels=2048,
            parameters=23_587_712,
            activation_bytes=2115,
            weights_origin="https://github.com/KaimingHe/deep-residual-networks",
            weights_license="the MIT License",
        ),
        "ResNet50V2": Facts(
            channels=2048,
            parameters=23_564_800,
            activation_bytes=1930,
            weights_origin="https://github.com/facebook/fb.resnet.torch",
            weights_license="the BSD License",
        ),
        "ConvNeXtTiny": _convnext(27_820_128, 2466),
        "ConvNeXtSmall": _convnext(49_454_688, 3978),
        "DenseNet121": Facts(
            channels=1024,
            parameters=7_037_504,
            activation_bytes=2731,
            weights_origin="https://github.com/liuzhuang13/DenseNet",
            weights_license="the BSD 3-Clause License",
        ),
    }
)
"""Name -> facts. tests/pipeline/test_backbones.py compares the figures with Keras."""


def feature_size(backbone: str, alpha: float) -> int:
    """Return the length of a feature vector: the channels of the last maps, as keras.applications computes them."""
    channels = BACKBONES[backbone].channels
    if backbone == "MobileNetV2":
        return channels if alpha <= 1 else _divisible(channels * alpha)
    if backbone.startswith("MobileNetV3"):
        return _divisible(_divisible(channels / 6 * alpha) * 6)
    return channels


def _divisible(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8, and no more than a tenth below `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
