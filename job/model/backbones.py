"""The backbones: how each is built, how its input is scaled, and which files Keras publishes for it.

Everything is by the table `BACKBONES`; the facts that are needed before TensorFlow is imported are in
`job.config.backbones`. Keras is imported by the functions that build: finding weights files does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from job.config.backbones import BACKBONES as FACTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

Scaling = Literal["symmetric", "imagenet", "caffe", "inside"]
"""Scaling of the pixels before the backbone: to [-1, 1]; to mean 0 and variance 1 of ImageNet's channels; BGR minus
ImageNet's channel means; none, since the backbone has layers for it."""

SIZES = (96, 128, 160, 192, 224)
"""Image sizes for which Keras publishes weights of MobileNetV2 (keras.applications.MobileNetV2)."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)
"""Of ImageNet's channels (keras.src.applications.imagenet_utils)."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """How a backbone is built, and the files that Keras publishes for it.

    Attributes:
        scaling: of the pixels before the backbone.
        folder: below Keras's download URL.
        file: Keras's name of the file with the ImageNet weights without the top, with {alpha} and {size}.
        checksums: alpha -> MD5 or SHA-256 of the file, as in Keras's WEIGHTS_HASHES; empty where Keras has none.
    """

    scaling: Scaling
    folder: str
    file: str
    checksums: Mapping[float, str] = field(default_factory=dict)


def _efficientnet_v2(name: str, checksum: str) -> Backbone:
    file = f"efficientnetv2-{name}_notop.h5"
    return Backbone(scaling="inside", folder="efficientnet_v2", file=file, checksums={1.0: checksum})


def _mobilenet_v3(size: str, checksums: Mapping[float, str]) -> Backbone:
    file = f"weights_mobilenet_v3_{size}_224_{{alpha}}_float_no_top_v2.h5"
    return Backbone(scaling="inside", folder="mobilenet_v3", file=file, checksums=checksums)


BACKBONES: Final[Mapping[str, Backbone]] = MappingProxyType(
    {
        "MobileNetV2": Backbone(
            scaling="symmetric",
            folder="mobilenet_v2",
            file="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5",
        ),
        "MobileNetV3Small": _mobilenet_v3(
            "small", {0.75: "ebdb5cc8e0b497cd13a7c275d475c819", 1.0: "d3e8ec802a04aa4fc771ee12a9a9b836"}
        ),
        "MobileNetV3Large": _mobilenet_v3(
            "large", {0.75: "40af19a13ebea4e2ee0c676887f69a2e", 1.0: "07fb09a5933dd0c8eaafa16978110389"}
        ),
        "EfficientNetV2B0": _efficientnet_v2("b0", "893217f2bb855e2983157299931e43ff"),
        "EfficientNetV2B1": _efficientnet_v2("b1", "0e80663031ca32d657f9caa404b6ec37"),
        "EfficientNetV2B2": _efficientnet_v2("b2", "1dfe2e7a5d45b6632553a8961ea609eb"),
        "EfficientNetV2B3": _efficientnet_v2("b3", "f6abf7b5849ac99a89b50dd3fd532856"),
        "EfficientNetV2S": _efficientnet_v2("s", "af0682fb74e8c54910f2d4393339c070"),
        "ResNet50": Backbone(
            scaling="caffe",
            folder="resnet",
            file="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            checksums={1.0: "4d473c1dd8becc155b73f8504c6f6626"},
        ),
        "ResNet50V2": Backbone(
            scaling="symmetric",
            folder="resnet",
            file="resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            checksums={1.0: "fac2f116257151a9d068a22e544a4917"},
        ),
        "ConvNeXtTiny": Backbone(
            scaling="inside",
            folder="convnext",
            file="convnext_tiny_notop.h5",
            checksums={1.0: "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"},
        ),
        "ConvNeXtSmall": Backbone(
            scaling="inside",
            folder="convnext",
            file="convnext_small_notop.h5",
            checksums={1.0: "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"},
        ),
        "DenseNet121": Backbone(
            scaling="imagenet",
            folder="densenet",
            file="densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
            checksums={1.0: "30ee3e1110167f948a6b9946edeeb738"},
        ),
    }
)
"""Name in keras.applications -> backbone."""


def create(name: str, *, alpha: float, image_size: int) -> keras.Model:
    """Return a backbone without its top, with Keras's random weights: float32 [n, size, size, 3] -> maps.

    Dropout inside of the backbone (EfficientNetV2) is left out: the recipe runs the backbone in inference mode, where
    it does nothing, and its random state would be part of every checkpoint.

    Args:
        name: of the table.
        alpha: width multiplier; ignored if the backbone has none.
        image_size: height and width of its input, at least 32.
    """
    import keras

    width = {"alpha": alpha} if FACTS[name].alphas else {}
    constructor = getattr(keras.applications, name)
    model = constructor(input_shape=(image_size, image_size, 3), include_top=False, weights=None, **width)
    if any(isinstance(layer, keras.layers.Dropout) for layer in model.layers):
        model = keras.models.clone_model(model, clone_function=_clone, call_function=_skip_dropout)
    name_variables(model)
    return model


def name_variables(model: keras.Model) -> None:
    """Name the layer and the variables that ConvNeXt leaves unnamed: their paths are keys of checkpoints.

    Keras numbers what is unnamed by the models that were built before in the process.
    """
    for layer in model._flatten_layers():  # noqa: SLF001 (includes nested layers; the public .layers does not)
        if type(layer).__name__ == "LayerScale":
            layer.gamma._name, layer.gamma._path = "gamma", f"{layer.name}/gamma"  # noqa: SLF001
        elif layer.name.startswith("layer_normalization"):
            layer.name = "last_layernorm"
            for variable in layer.variables:
                variable._path = f"{layer.name}/{variable.name}"  # noqa: SLF001


def rescaling(name: str) -> keras.Layer:
    """Return the layer ``rescaling`` before a backbone: pixels of 0 to 255 [n, height, width, 3] -> float32, scaled."""
    import keras

    scaling = BACKBONES[name].scaling
    arguments: dict[Scaling, dict[str, Any]] = {
        "symmetric": {"scale": 1 / 127.5, "offset": -1},
        "imagenet": {
            "scale": [1 / (255 * deviation) for deviation in _DEVIATION],
            "offset": [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
        },
        "caffe": {"scale": 1.0, "offset": [-mean for mean in _CAFFE_MEAN_RGB]},
        "inside": {"scale": 1.0},
    }
    if scaling != "caffe":
        return keras.layers.Rescaling(**arguments[scaling], name="rescaling")
    pixels = keras.Input((None, None, 3))
    centered = keras.layers.Rescaling(**arguments[scaling], name="centered")(pixels)
    return keras.Model(pixels, keras.ops.flip(centered, axis=-1), name="rescaling")


def file_name(name: str, alpha: float, image_size: int) -> str:
    """Return Keras's name of the file with a backbone's ImageNet weights without the top."""
    return BACKBONES[name].file.format(alpha=float(alpha), size=published_size(image_size))


def published_size(image_size: int) -> int:
    """Return the size whose weights Keras selects for an image size, of MobileNetV2."""
    return image_size if image_size in SIZES else 224


def _clone(layer: keras.Layer) -> keras.Layer:
    return type(layer).from_config(layer.get_config())


def _skip_dropout(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
    import keras

    return args[0] if isinstance(layer, keras.layers.Dropout) else layer(*args, **kwargs)
