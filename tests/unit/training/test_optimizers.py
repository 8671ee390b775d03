"""The optimizer that the settings of a stage ask for."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import small_classifier
from short_stages import settings

from job.training import optimizers


def created(precision: str = "float32", **values: float) -> keras.optimizers.Optimizer:
    """Return the optimizer of a stage for the variables of a classifier."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    return optimizers.create_optimizer(settings(**values), 0.5, precision, classifier.model.trainable_variables)


def test_default_is_plain_adam() -> None:
    """By default it is Keras's Adam, with nothing but the scaled learning rate."""
    optimizer = created()
    plain = keras.optimizers.Adam(5e-4, name="adam")

    assert keras.optimizers.Adam is type(optimizer)
    assert plain.get_config() == optimizer.get_config()


def test_decayed_variables() -> None:
    """Kernels decay, also depthwise ones; biases and normalization layers do not."""
    classifier = small_classifier()
    variables = [v for v in classifier.model.variables if "moving" not in v.name]
    optimizer = optimizers.create_optimizer(settings(weight_decay=0.5), 1.0, "float32", variables)
    before = {v.path: v.numpy() for v in variables}
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)

    changed = {v.path for v in variables if not np.array_equal(before[v.path], v.numpy())}
    assert {v.path for v in variables if v.name in ("kernel", "depthwise_kernel", "pointwise_kernel")} == changed
    assert {"gamma", "beta", "bias"} == {v.name for v in variables if v.path not in changed}
    path = classifier.fc1.kernel.path
    np.testing.assert_allclose(before[path] * (1 - 0.5 * 1e-3), classifier.fc1.kernel.numpy(), rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_are_clipped_together_and_unscaled(precision: str) -> None:
    """The norm of all gradients together is limited; in float16 that of the gradients without their loss scale."""
    variables = [keras.Variable(np.zeros(2, np.float32)), keras.Variable(np.zeros((1, 2), np.float32))]
    optimizer = optimizers.create_optimizer(settings(clip_norm=1.0), 1.0, precision, variables)
    gradients = [np.float32([3, 0]), np.float32([[0, 4]])]
    optimizer.apply([tf.constant(optimizers.loss_scale(optimizer) * one) for one in gradients], variables)

    momenta = [value for path, value in optimizers.values_of(optimizer).items() if path.endswith("momentum")]
    for gradient, momentum in zip(gradients, momenta, strict=True):
        np.testing.assert_allclose(0.1 * gradient / 5, momentum, rtol=1e-5)


def test_loss_scale() -> None:
    """Only float16 scales the loss; the variables of the scaling are recognised by their names."""
    scaled = created("float16")

    assert (1.0, 2.0**15) == (optimizers.loss_scale(created()), optimizers.loss_scale(scaled))
    names = {"loss_scale/step_counter", "loss_scale/dynamic_scale"}
    assert names <= optimizers.scaling_of(optimizers.values_of(scaled)).keys()
    assert {} == optimizers.scaling_of(optimizers.values_of(created()))


def test_values_come_back() -> None:
    """The values that were read are those that are loaded."""
    optimizer = created(weight_decay=0.1, clip_norm=1.0)
    values = {path: value + 1 for path, value in optimizers.values_of(optimizer).items()}
    optimizers.load_values(optimizer, values)

    seen = optimizers.values_of(optimizer)
    assert all(np.array_equal(value, seen[path]) for path, value in values.items())


def test_loss_scale_is_adjusted_as_by_keras() -> None:
    """Halved after an overflow, doubled after as many finite steps as Keras counts."""
    own, reference = (
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), dynamic_growth_steps=2) for _ in range(2)
    )
    variable = keras.Variable([1.0])
    for optimizer in (own, reference):
        optimizer.build([variable])
    seen, expected = [], []
    for gradient in (1.0, 1.0, np.inf, 1.0, np.inf, 1.0, 1.0):
        optimizers.adjust_loss_scale(own, has_overflowed=not np.isfinite(gradient))
        reference.apply([tf.constant([gradient])], [variable])
        for optimizer, states in ((own, seen), (reference, expected)):
            states.append((optimizers.loss_scale(optimizer), int(optimizer.step_counter.numpy())))

    assert expected == seen
    assert len(set(seen)) > 3
