"""Backbones are built, scaled and folded as keras.applications defines them: here the two that are quick to build.

The others are in tests/pipeline/test_backbones.py.
"""

from __future__ import annotations

import inspect
from typing import get_args

import keras
import pytest
from backbone_checks import check_backbone

from job.config.backbones import BACKBONES as FACTS
from job.config.backbones import BackboneName
from job.model import backbones


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "ResNet50"])
def test_backbone(name: str) -> None:
    """Preprocessing, folding, half precision and facts are right."""
    check_backbone(name)


def test_tables_have_the_same_names() -> None:
    """The setting, the facts and the constructors are about the same backbones."""
    assert set(get_args(BackboneName)) == set(FACTS) == set(backbones.BACKBONES)


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_files_are_those_of_keras(name: str) -> None:
    """The folder, the file's name and its checksum are in the source of Keras; alphas are those with a file."""
    backbone = backbones.BACKBONES[name]
    module = inspect.getmodule(getattr(keras.applications, name))
    assert module is not None
    source = inspect.getsource(module)
    if module.__name__.endswith("resnet_v2"):
        source = inspect.getsource(keras.src.applications.resnet)

    assert f"/keras-applications/{backbone.folder}/" in source
    assert all(checksum in source for checksum in backbone.checksums.values())
    if backbone.checksums:
        assert (FACTS[name].alphas or (1.0,)) == tuple(backbone.checksums)


@pytest.mark.parametrize(
    ("name", "alpha", "size", "expected"),
    [
        ("MobileNetV2", 0.35, 96, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"),
        ("MobileNetV3Small", 0.75, 96, "weights_mobilenet_v3_small_224_0.75_float_no_top_v2.h5"),
        ("MobileNetV3Large", 1, 224, "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"),
        ("EfficientNetV2B2", 1.0, 260, "efficientnetv2-b2_notop.h5"),
        ("EfficientNetV2S", 1.0, 224, "efficientnetv2-s_notop.h5"),
        ("ResNet50V2", 1.0, 224, "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("DenseNet121", 1.0, 224, "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"),
    ],
)
def test_file_name(name: str, alpha: float, size: int, expected: str) -> None:
    """The file's name has the width and the size where Keras's has them."""
    assert expected == backbones.file_name(name, alpha, size)


@pytest.mark.slow
def test_variables_have_the_same_paths_each_time() -> None:
    """Paths are keys of checkpoints: they do not depend on what was built before in the process."""
    for name in ("EfficientNetV2B0", "ConvNeXtTiny"):
        first, second = (
            [v.path for v in backbones.create(name, alpha=1.0, image_size=size).variables] for size in (32, 64)
        )
        assert first == second
        assert len(first) == len(set(first))
        assert not any("seed_generator" in path for path in first)
