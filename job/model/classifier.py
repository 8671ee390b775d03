"""The classifier: a pretrained base model with a new head, and which variables each stage trains.

uint8 pixels -> rescaling -> base model -> global average pooling (features) -> [dropout] -> [fc1] -> output

The rescaling is that of the backbone (`job.model.backbones`): to [-1, 1] for MobileNetV2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from job.config.settings import STAGES, StageName
from job.model import backbones, folding, partial_training

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.config.settings import FineTuningSettings, ModelSettings, Settings
    from job.model.weights import Provenance
    from job.runtime.device import Device, Precision

Arrays: TypeAlias = "dict[str, NDArray[Any]]"


class Network(NamedTuple):
    """The layers, independent of their weights.

    Attributes:
        model: the standard Keras model, which contains `base_model`.
        base_model: the backbone without its top.
    """

    model: keras.Model
    base_model: keras.Model


class Classifier:
    """The Keras model with its weights, and the same mathematics as functions of tensors.

    The constructor folds BatchNormalization into the convolutions, with its current statistics as constants: load the
    weights first. Two folded base models share the variables: one computes in float32, the other in the training
    precision. Half precision is used in the training step only, since it changes probabilities by up to 0.2: the model
    that is evaluated, gated and published must be the same float32 model
    (docs/adr/0005-half-precision-in-the-step-alone.md). Variables and the head are always float32.

    Args:
        network: with the weights that training starts or resumes from.
        labels: the class names, in the order of the probabilities.
        pretrained: the base model's weights are not random.
        training_precision: of the base model in a training step.
        xla: the training step is compiled with XLA.
        initial_base: the base model's variables before any training; None: those that it has now.
        fine_tuning: which part of the base model it trains; None: all of it.

    Raises:
        errors.SettingsError: there is no such layer, or the frozen part has several outputs that would be cached.

    Attributes:
        model: the recipe's Keras model: uint8 pixels [n, size, size, 3] -> probabilities, [n, 1] (sigmoid: that of the
            second label) for two labels, [n, labels] (softmax) for more.
        base_model: float32 [n, size, size, 3], scaled as the backbone needs it -> float32 [n, height, width, channels].
        labels: the class names, in the order of the probabilities.
        pretrained: the base model's weights are not random.
        training_precision: of the base model in a training step.
        xla: the training step is compiled with XLA.
        initial_base: the base model's variables before any training: path -> value.
        fc1: the hidden layer of the head; None if it has none.
        frozen_layers: layers of the base model that no stage trains.
    """

    def __init__(
        self,
        network: Network,
        labels: tuple[str, ...],
        *,
        pretrained: bool,
        training_precision: Precision = "float32",
        xla: bool = False,
        initial_base: Arrays | None = None,
        fine_tuning: FineTuningSettings | None = None,
    ) -> None:
        self.model, self.base_model = network
        self.initial_base = initial_base or variables_of(self.base_model)
        self.labels = labels
        self.pretrained = pretrained
        self.training_precision = training_precision
        self.xla = xla
        self.rescaling = self.model.get_layer("rescaling")
        self.fc1 = next((layer for layer in self.model.layers if layer.name == "fc1"), None)
        self.output = self.model.get_layer("output")
        self.dropout = float(sum(layer.rate for layer in self.model.layers if isinstance(layer, keras.layers.Dropout)))
        from_layer = fine_tuning.from_layer if fine_tuning else ""
        self.frozen_layers = partial_training.frozen_layers(self.base_model, from_layer) if from_layer else []
        self._folded = self._folded_for_training = folding.fold(self.base_model)
        if training_precision != "float32":
            self._folded_for_training = folding.fold(self.base_model, f"mixed_{training_precision}")
        self.frozen_part = None
        if fine_tuning and fine_tuning.cache_frozen and fine_tuning.epochs:
            self.frozen_part = partial_training.FrozenPart(
                self.base_model, from_layer, None if training_precision == "float32" else f"mixed_{training_precision}"
            )

    @property
    def image_size(self) -> int:
        """Height and width of the pixels."""
        return int(self.model.input_shape[1])

    @property
    def feature_size(self) -> int:
        """Channels of the base model's output: the length of a feature vector."""
        return int(self.base_model.output_shape[-1])

    def maps(self, pixels: tf.Tensor) -> tf.Tensor:
        """Return the base model's last maps, float32 [n, height, width, feature_size], of uint8 [n, size, size, 3]."""
        return tf.cast(self._folded(self.rescaling(pixels), training=False), tf.float32)

    def features(self, pixels: tf.Tensor) -> tf.Tensor:
        """Return the pooled features, float32 [n, feature_size], of uint8 pixels [n, size, size, 3]."""
        return self.pooled(self.maps(pixels))

    def pooled(self, maps: tf.Tensor) -> tf.Tensor:
        """Return the features, float32 [n, feature_size], of maps, float32 [n, height, width, feature_size]."""
        return keras.ops.mean(maps, axis=(1, 2))

    def frozen_maps(self, pixels: tf.Tensor) -> tf.Tensor:
        """Return the outputs of the frozen part, float32 [n, *frozen_part.shape], of uint8 pixels."""
        assert self.frozen_part is not None
        return self.frozen_part.outputs(self.rescaling(pixels))

    def trained_features(self, frozen_maps: tf.Tensor) -> tf.Tensor:
        """Return the pooled features, float32 [n, feature_size], of the outputs of the frozen part."""
        assert self.frozen_part is not None
        return self.pooled(self.frozen_part.maps(frozen_maps))

    def logits_of_frozen(self, frozen_maps: tf.Tensor) -> tf.Tensor:
        """Return the logits of the outputs of the frozen part, computed in float32."""
        return self.head_logits(self.trained_features(frozen_maps))

    def training_logits_of_frozen(self, frozen_maps: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
        """Return the logits, float32, of the outputs of the frozen part, computed in the training precision."""
        assert self.frozen_part is not None
        return self.head_logits(self.pooled(self.frozen_part.training_maps(frozen_maps)), dropout_seed)

    def head_logits(self, features: tf.Tensor, dropout_seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the logits, float32 [n, 1] for two labels or [n, labels], of features [n, feature_size].

        Args:
            features: float32.
            dropout_seed: int32 [2]; determines the dropped features. None: no dropout.
        """
        if dropout_seed is not None and self.dropout:
            features = tf.nn.experimental.stateless_dropout(features, self.dropout, seed=dropout_seed)
        hidden = features if self.fc1 is None else self.fc1(features)
        return keras.ops.matmul(hidden, self.output.kernel) + self.output.bias

    def logits(self, pixels: tf.Tensor) -> tf.Tensor:
        """Return the logits of uint8 pixels [n, size, size, 3], computed in float32 as in the published model."""
        return self.head_logits(self.features(pixels))

    def training_logits(self, pixels: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
        """Return the logits, float32, of uint8 pixels [n, size, size, 3], computed in the training precision."""
        maps = self._folded_for_training(self.rescaling(pixels), training=False)
        return self.head_logits(self.pooled(tf.cast(maps, tf.float32)), dropout_seed)

    def head_training_logits(self, pixels: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
        """Return the logits of uint8 pixels [n, size, size, 3] in float32, with dropout: to train the head alone."""
        return self.head_logits(self.features(pixels), dropout_seed)

    def losses(
        self,
        logits: tf.Tensor,
        labels: tf.Tensor,
        *,
        class_weights: NDArray[Any] | None = None,
        label_smoothing: float = 0.0,
    ) -> tf.Tensor:
        """Return each image's cross-entropy, float32 [n].

        Args:
            logits: float32 [n, outputs].
            labels: int32 [n].
            class_weights: float32 [labels]: an image's loss is multiplied by that of its label; None: by nothing.
            label_smoothing: share of the target that is spread evenly over all labels, the image's own included.
        """
        losses = self._losses(logits, labels, label_smoothing)
        return losses if class_weights is None else losses * tf.gather(tf.constant(class_weights), labels)

    def _losses(self, logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float) -> tf.Tensor:
        off = label_smoothing / len(self.labels)
        on = 1 - label_smoothing + off
        if len(self.labels) == 2:
            targets = tf.cast(labels[:, None], logits.dtype)
            if label_smoothing:
                targets = off + (on - off) * targets
            return tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)[:, 0]
        if label_smoothing:
            targets = tf.one_hot(labels, len(self.labels), on, off, dtype=logits.dtype)
            return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

    def predictions(self, logits: tf.Tensor) -> tf.Tensor:
        """Return the index of each image's most probable label, int32 [n]."""
        if len(self.labels) == 2:
            return tf.cast(logits[:, 0] > 0, tf.int32)
        return tf.argmax(logits, axis=1, output_type=tf.int32)

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Return one probability per label, float32 [n, labels], for two labels as well."""
        if len(self.labels) == 2:
            return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)
        return tf.nn.softmax(logits)

    def set_trainable(self, stage: StageName) -> None:
        """Set the trainable flags for `stage`: the head alone, or everything except BatchNormalization.

        Layers before the first one that fine_tuning trains stay frozen, if the settings name one.

        ``base_model(x, training=False)`` does not keep BatchNormalization in inference mode, since ``fit`` overrides
        it; ``trainable = False`` on each layer does (https://keras.io/guides/transfer_learning/).
        """
        self.base_model.trainable = stage == "fine_tuning"
        for layer in [*self.frozen_layers, *self.normalizations()]:
            layer.trainable = False

    def normalizations(self) -> list[keras.layers.BatchNormalization]:
        """Return all BatchNormalization layers of the base model."""
        layers = self.base_model._flatten_layers()  # noqa: SLF001 (includes nested layers; the public .layers does not)
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    def head_variables(self) -> list[keras.Variable]:
        """Return the head's variables."""
        return [variable for layer in (self.fc1, self.output) if layer is not None for variable in layer.variables]

    def frozen_variables(self) -> list[keras.Variable]:
        """Return the base model's variables that no stage trains because of `from_layer`."""
        return [variable for layer in self.frozen_layers for variable in layer.variables]

    def head_state(self) -> Arrays:
        """Return a copy of the head's variables: path -> value."""
        return {variable.path: np.array(variable.numpy()) for variable in self.head_variables()}

    def state(self) -> Arrays:
        """Return a copy of all variables of the model: path -> value."""
        return variables_of(self.model)

    def load_state(self, state: Arrays) -> None:
        """Set all variables of the model to the values that `state` returned."""
        load_state(self.model, state)


def variables_of(model: keras.Model) -> Arrays:
    """Return a copy of all weights of a model: path -> value. The random state of Keras's Dropout is not among them.

    That layer is part of the saved model alone: training drops features by its own seeds.
    """
    return {variable.path: np.array(variable.numpy()) for variable in model.weights}


def load_state(model: keras.Model, state: Arrays) -> None:
    """Set all weights of a model: path -> value."""
    for variable in model.weights:
        variable.assign(state[variable.path])


def create_network(settings: ModelSettings, labels: tuple[str, ...], *, seed: int) -> Network:
    """Create the layers with random weights. The seed applies to all weights that are not loaded later.

    Args:
        settings: the backbone, its width and the head.
        labels: the class names, at least two.
        seed: of the initial weights; the same seed gives the same weights.
    """
    size = settings.image_size
    base_model = backbones.create(settings.backbone, alpha=settings.alpha, image_size=size)
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    x = base_model(backbones.rescaling(settings.backbone)(pixels), training=False)
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    if settings.dropout:
        x = keras.layers.Dropout(settings.dropout, name="dropout")(x)
    if settings.head_units:
        x = keras.layers.Dense(settings.head_units, activation="relu", name="fc1")(x)
    if len(labels) == 2:
        x = keras.layers.Dense(1, activation="sigmoid", name="output")(x)
    else:
        x = keras.layers.Dense(len(labels), activation="softmax", name="output")(x)
    model = keras.Model(pixels, x, name="finetune")
    loaded_later = [] if settings.weights == "none" else base_model.variables
    _initialize(model, seed, skip={variable.path for variable in loaded_later})
    return Network(model, base_model)


def build(
    settings: Settings,
    labels: tuple[str, ...],
    *,
    resumed: Arrays,
    machine: Device,
    load_weights: Callable[[Network], Provenance],
) -> tuple[Classifier, Provenance]:
    """Create the layers, load or restore their weights, and fold the base model.

    Args:
        settings: the model, the seed of its initial weights, and what fine_tuning trains.
        labels: the class names, at least two.
        resumed: `Classifier.state` of an earlier start of the run; empty for a new run.
        machine: its training precision and XLA.
        load_weights: sets the weights that a new run starts from.

    Returns:
        The classifier, and the provenance of its base model's initial weights.

    Raises:
        errors.FinetuneError: raised by `load_weights` or `Classifier`.
    """
    network = create_network(settings.model, labels, seed=settings.run.seed)
    provenance = load_weights(network)
    initial_base = variables_of(network.base_model)
    if resumed:
        load_state(network.model, resumed)
    classifier = Classifier(
        network,
        labels,
        pretrained=provenance.source != "random",
        training_precision=machine.precision,
        xla=machine.xla,
        initial_base=initial_base,
        fine_tuning=settings.fine_tuning,
    )
    return classifier, provenance


def _initialize(model: keras.Model, seed: int, skip: set[str]) -> None:
    """Initialize each kernel as Keras does (Glorot uniform), but with its own seed.

    Keras draws its seeds from Python's global generator, which other threads use concurrently: an upload of status.json
    draws the boundary between its parts from it. With set_random_seed alone the weights would depend on that.
    """
    kernels = [variable for variable in model.variables if variable.name == "kernel"]
    for number, kernel in enumerate(kernels):
        if kernel.path in skip:
            continue
        key = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        kernel.assign(keras.initializers.GlorotUniform(seed=key)(kernel.shape, kernel.dtype))


def summary(settings: ModelSettings, fine_tuning: FineTuningSettings | None = None) -> str:
    """Return a table of the model's layers, for two labels, with their trainable flag in each stage.

    Loads no weights and reads no data.

    Args:
        settings: the backbone and the head.
        fine_tuning: which part of the backbone it trains; None: all of it.

    Raises:
        errors.SettingsError: the backbone has no such layer.
    """
    classifier = Classifier(
        create_network(settings, ("a", "b"), seed=0),
        ("a", "b"),
        pretrained=False,
        fine_tuning=fine_tuning,
    )
    layers = [
        inner
        for layer in classifier.model.layers
        for inner in (layer.layers if layer is classifier.base_model else [layer])
    ]
    columns: list[dict[str, str]] = []
    totals = []
    for stage in STAGES:
        classifier.set_trainable(stage)
        columns.append({layer.name: _trainable_flag(layer) for layer in layers})
        totals.append(sum(int(np.prod(v.shape)) for v in classifier.model.trainable_variables))
    lines = [f"{'layer':28} {'type':24} {'output':20} {'parameters':>10}  {'feature_extraction':18}  fine_tuning"]
    for layer in layers:
        shape = "x".join(str(n) for n in layer.output.shape[1:])
        layer_type, parameters = type(layer).__name__, layer.count_params()
        flags = f"{columns[0][layer.name]:18}  {columns[1][layer.name]}"
        lines.append(f"{layer.name:28} {layer_type:24} {shape:20} {parameters:>10,}  {flags}".rstrip())
    lines.append(
        f"{classifier.model.count_params():,} parameters; trainable: "
        f"{totals[0]:,} in feature_extraction, {totals[1]:,} in fine_tuning"
    )
    lines.append(
        "model.keras resizes uint8 pixels of any size, then calls this model; its output for two labels is one column, "
        "the probability of the second label"
    )
    return "\n".join(lines)


def _trainable_flag(layer: keras.layers.Layer) -> str:
    """Return "yes" or "no"; empty for a layer without variables."""
    if not layer.variables:
        return ""
    return "yes" if layer.trainable_variables else "no"
