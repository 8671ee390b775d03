"""Fine-tuning the top of the backbone: the layers before `fine_tuning.from_layer` stay frozen.

With `fine_tuning.cache_frozen` the frozen part is computed once for each image. It must have one output: the backbone
is then a chain of two models, the second of which is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from job import errors
from job.config.hints import similar
from job.model import folding

if TYPE_CHECKING:
    from collections.abc import Sequence


class FrozenPart:
    """The backbone as two models: one that no stage trains, and one that fine-tuning trains, both folded.

    They share the variables of the backbone.

    Args:
        base_model: with the weights that training starts or resumes from.
        from_layer: the first layer of the second model.
        policy: Keras's dtype policy of the training step; None: float32.

    Raises:
        errors.SettingsError: there is no such layer, or more than one tensor leads from the first model to the second.

    Attributes:
        shape: of the first model's output for an image, [height, width, channels].
        from_layer: the first layer of the second model.
    """

    def __init__(self, base_model: keras.Model, from_layer: str, policy: str | None) -> None:
        tensors = crossing(base_model, from_layer)
        if len(tensors) != 1:
            names = [name for name in trainable_names(base_model) if len(crossing(base_model, name)) == 1]
            order = [layer.name for layer in base_model.layers]
            nearest = sorted(names, key=lambda name: abs(order.index(name) - order.index(from_layer)))[:2]
            raise errors.SettingsError(
                f"fine_tuning.from_layer = {from_layer!r} with fine_tuning.cache_frozen: the layers before it have "
                f"{len(tensors)} outputs that are read later, and one can be cached",
                remedy=f"set fine_tuning.from_layer to {' or '.join(sorted(nearest, key=order.index))}, or unset "
                "fine_tuning.cache_frozen",
            )
        [cut] = tensors
        trained = keras.Model(cut, base_model.output, name=f"{base_model.name}_trained")
        self.shape = tuple(int(length) for length in cut.shape[1:])
        self.from_layer = from_layer
        self._frozen = folding.fold(keras.Model(base_model.input, cut, name=f"{base_model.name}_frozen"))
        self._trained = self._trained_for_training = folding.fold(trained)
        if policy:
            self._trained_for_training = folding.fold(trained, policy)

    def outputs(self, scaled: tf.Tensor) -> tf.Tensor:
        """Return the frozen part's outputs, float32 [n, *shape], of the base model's inputs."""
        return tf.cast(self._frozen(scaled, training=False), tf.float32)

    def maps(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the base model's last maps, float32 [n, height, width, channels], of `outputs`."""
        return tf.cast(self._trained(outputs, training=False), tf.float32)

    def training_maps(self, outputs: tf.Tensor) -> tf.Tensor:
        """Return the same maps, float32, computed in the training precision."""
        return tf.cast(self._trained_for_training(outputs, training=False), tf.float32)


def frozen_layers(base_model: keras.Model, from_layer: str) -> Sequence[keras.layers.Layer]:
    """Return the layers that precede `from_layer`, in the order in which Keras lists them.

    Raises:
        errors.SettingsError: no layer of that name can be trained.
    """
    names = trainable_names(base_model)
    if from_layer not in names:
        nearest = similar(from_layer, names) or names[-1:]
        raise errors.SettingsError(
            f"fine_tuning.from_layer = {from_layer!r}: {base_model.name} has no such layer that can be trained; "
            f"the most similar: {', '.join(nearest)}",
            remedy="set it to the name of a layer that finetune summary shows as trained in fine_tuning",
        )
    layers: list[keras.layers.Layer] = base_model.layers
    return layers[: [layer.name for layer in layers].index(from_layer)]


def trainable_names(base_model: keras.Model) -> list[str]:
    """Return the names of the layers that fine-tuning can train: with variables, and no BatchNormalization."""
    return [
        layer.name
        for layer in base_model.layers
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization)
    ]


def crossing(base_model: keras.Model, from_layer: str) -> list[Any]:
    """Return the tensors that operations from `from_layer` on read, and that operations before it compute."""
    operations = base_model.operations
    position = [operation.name for operation in operations].index(from_layer)
    after = set(operations[position:])
    tensors = {}
    for node in folding.nodes(base_model):
        for tensor in node.input_tensors if node.operation in after else ():
            if folding.producer(tensor) not in after:
                tensors[id(tensor)] = tensor
    return list(tensors.values())
