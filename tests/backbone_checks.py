"""What must hold of every backbone: its input, its folding, half precision, and the facts in the tables."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from classifiers import examples

from job.config.backbones import BACKBONES, feature_size
from job.config.settings import ModelSettings, Settings
from job.model import backbones, folding, partial_training
from job.model.classifier import Classifier, create_network, load_state, variables_of
from job.observability.progress import Progress
from job.training import stages
from job.training.optimizers import values_of
from job.training.state import TrainingState

SIZE = 32


def randomize(model: keras.Model) -> None:
    """Give every BatchNormalization and LayerScale values of its own, as trained ones have."""
    random = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization) or type(layer).__name__ == "LayerScale":
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])


def preprocess(name: str, pixels: np.ndarray) -> np.ndarray:
    """Return what keras.applications' own function makes of pixels."""
    module = __import__("inspect").getmodule(getattr(keras.applications, name))
    return np.asarray(module.preprocess_input(pixels.astype(np.float64)))


def check_backbone(name: str) -> None:
    """Build a backbone in float64 as Keras does and as the job does, and compare the outputs.

    In float64, rounding cannot hide a difference.
    """
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        base_model = backbones.create(name, alpha=1.0, image_size=SIZE)
        randomize(base_model)
        _check_outputs(name, base_model)
        _check_half_precision(name, base_model)
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    _check_facts(name, base_model)


def check_float16_step(name: str) -> None:
    """A step of stage 2 in float16, with its loss scaling, is close to one in float32: the loss and all gradients."""
    network = create_network(ModelSettings(backbone=name, image_size=SIZE, weights="none"), ("a", "b"), seed=7)
    randomize(network.base_model)
    before, losses, gradients = variables_of(network.model), [], []
    for precision in ("float32", "float16"):
        load_state(network.model, before)
        classifier = Classifier(network, ("a", "b"), pretrained=True, training_precision=precision)
        classifier.set_trainable("fine_tuning")
        data, state = examples(classifier, "fine_tuning"), TrainingState(stage="fine_tuning")
        trainer = stages.StageTrainer(
            Settings().fine_tuning, classifier, data, state, Progress(), lambda *_, **__: None
        )
        batch = data.inputs(data.train), data.labels[data.train], np.zeros(2, np.int32)
        losses.append(trainer.take_step(batch)[0])
        # Adam's first momentum is a tenth of the gradient.
        momenta = {path: array for path, array in values_of(trainer.optimizer).items() if "momentum" in path}
        gradients.append(np.concatenate([array.ravel() for array in momenta.values()]))

    exact, half = gradients
    assert np.isfinite(half).all()
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    assert np.linalg.norm(half - exact) < 0.1 * np.linalg.norm(exact)


def _check_outputs(name: str, base_model: keras.Model) -> None:
    """The maps are those of Keras's model behind Keras's preprocessing: plain, folded, merged and cut in two."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    original = getattr(keras.applications, name)(input_shape=(SIZE, SIZE, 3), include_top=False, weights=None)
    original.set_weights(base_model.get_weights())
    expected = np.asarray(original(preprocess(name, pixels), training=False))
    scaled = backbones.rescaling(name)(tf.constant(pixels))

    for model in (folding.fold(base_model), folding.merge(base_model)):
        _assert_close(model(scaled, training=False), expected, 1e-6)
    names = partial_training.trainable_names(base_model)
    cut = next(layer for layer in names[len(names) // 2 :] if len(partial_training.crossing(base_model, layer)) == 1)
    [tensor] = partial_training.crossing(base_model, cut)
    first, second = keras.Model(base_model.input, tensor), keras.Model(tensor, base_model.output)
    _assert_close(folding.fold(second)(folding.fold(first)(scaled)), expected, 1e-6)


def _check_half_precision(name: str, base_model: keras.Model) -> None:
    """A folded model in half precision computes in it throughout, and shares the variables, whose dtype is kept."""
    folded = folding.fold(base_model, "mixed_bfloat16")
    # Scaling the pixels apart, every layer that computes does so in half precision.
    scaling = (keras.layers.InputLayer, keras.layers.Rescaling, keras.layers.Normalization)
    computes = {layer.compute_dtype for layer in folded.layers if not isinstance(layer, scaling)}
    variables = {id(variable) for variable in base_model.variables}

    assert computes == {"bfloat16"}, name
    assert {id(variable) for variable in folded.variables} <= variables
    assert folded.output.dtype == "bfloat16"


def _check_facts(name: str, base_model: keras.Model) -> None:
    facts = BACKBONES[name]
    assert facts.channels == base_model.output.shape[-1] == feature_size(name, 1.0)
    assert facts.parameters == base_model.count_params()


def _assert_close(actual: object, expected: np.ndarray, tolerance: float) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance * scale)
