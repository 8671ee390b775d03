"""The backbone is cut where the settings say, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from backbone_checks import randomize

from job import errors
from job.model import backbones, partial_training

if TYPE_CHECKING:
    import keras


@pytest.fixture(scope="module")
def base_model() -> keras.Model:
    """Return a small MobileNetV2 whose maps are not nearly zero."""
    model = backbones.create("MobileNetV2", alpha=0.35, image_size=32)
    randomize(model)
    return model


@pytest.mark.slow
def test_frozen_layers(base_model: keras.Model) -> None:
    """The layers that precede the first trained one are frozen, in the order of the summary."""
    frozen = partial_training.frozen_layers(base_model, "block_13_expand")

    assert "block_12_add" == frozen[-1].name
    assert "Conv1" in [layer.name for layer in frozen]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("block_13_expnd", "block_13_expand"), ("block_13_expand_BN", "block_13_expand"), ("zz", "Conv_1")],
)
def test_unknown_layer(base_model: keras.Model, name: str, nearest: str) -> None:
    """A name that is no layer that can be trained is refused, with the most similar ones."""
    with pytest.raises(errors.SettingsError, match=name) as caught:
        partial_training.frozen_layers(base_model, name)

    assert 2 == caught.value.exit_code
    assert nearest in caught.value.message


def test_cut_inside_of_a_block(base_model: keras.Model) -> None:
    """Where a shortcut leads around the layer, two tensors cross: refused, with the nearest possible layers."""
    with pytest.raises(errors.SettingsError, match="block_12_project") as caught:
        partial_training.FrozenPart(base_model, "block_12_project", None)

    assert "2 outputs" in caught.value.message
    assert "block_12_expand or block_13_expand" in caught.value.remedy


@pytest.mark.slow
def test_both_parts_make_the_base_model(base_model: keras.Model) -> None:
    """The trained part of the frozen part's outputs gives the base model's maps, and shares its variables."""
    part = partial_training.FrozenPart(base_model, "block_13_expand", "mixed_bfloat16")
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    outputs = part.outputs(pixels)
    expected = np.asarray(base_model(pixels, training=False))

    assert (2, *part.shape) == outputs.shape
    np.testing.assert_allclose(part.maps(outputs), expected, rtol=0, atol=1e-5 * expected.max())
    np.testing.assert_allclose(part.training_maps(outputs), expected, rtol=0, atol=0.1 * expected.max())
    kernel = base_model.get_layer("Conv_1").kernel
    kernel.assign(kernel * 2)
    assert not np.allclose(part.maps(outputs), expected, rtol=0, atol=1e-2 * expected.max())
    kernel.assign(kernel / 2)
