"""The optimizer of a stage, and the values of its variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import StageSettings
    from job.runtime.device import Precision
    from job.training.state import Arrays

LOSS_SCALE = "loss_scale"
"""Name of the loss-scaling optimizer, and the prefix of its variables."""


def create_optimizer(
    settings: StageSettings, learning_rate_scale: float, precision: Precision, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """Return Adam, or AdamW where the settings ask for weight decay, built for some variables.

    In float16 its gradients are scaled, since small ones would underflow to zero. They are clipped after that scaling
    is undone.

    Args:
        settings: of the stage.
        learning_rate_scale: of the run: below 1 after a loss that was not finite.
        precision: of the training step.
        variables: to be trained.
    """
    options = {"learning_rate": settings.learning_rate * learning_rate_scale, "name": "adam"}
    if settings.clip_norm:
        options["global_clipnorm"] = settings.clip_norm
    if settings.weight_decay:
        optimizer = keras.optimizers.AdamW(weight_decay=settings.weight_decay, **options)
        # Biases, and gamma and beta of normalization layers, have one axis: they don't decay, as in timm's optimizers.
        optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) < 2])
    else:
        optimizer = keras.optimizers.Adam(**options)
    if precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name=LOSS_SCALE)
    optimizer.build(variables)
    return optimizer


def values_of(optimizer: keras.optimizers.Optimizer) -> Arrays:
    """Return a copy of the optimizer's variables: path -> value."""
    return {variable.path: np.array(variable.numpy()) for variable in optimizer.variables}


def scaling_of(values: Arrays) -> Arrays:
    """Return the variables of the loss scaling among an optimizer's; none except in float16."""
    return {path: value for path, value in values.items() if path.startswith(f"{LOSS_SCALE}/")}


def load_values(optimizer: keras.optimizers.Optimizer, values: Arrays) -> None:
    """Set the optimizer's variables to these values: path -> value."""
    for variable in optimizer.variables:
        variable.assign(values[variable.path])


def is_scaled(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the loss is scaled, as in float16."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def adjust_loss_scale(optimizer: keras.optimizers.LossScaleOptimizer, *, has_overflowed: bool) -> None:
    """Adjust the loss scale after a step as the optimizer's own `apply` does, which needs a single device.

    Args:
        optimizer: of the step.
        has_overflowed: a scaled gradient was not finite: the scale is halved. After many finite steps it is doubled.
    """
    scale, finite_steps = loss_scale(optimizer), int(optimizer.step_counter.numpy()) + 1
    if has_overflowed:
        scale, finite_steps = scale / 2, 0
    elif finite_steps == optimizer.dynamic_growth_steps:
        scale, finite_steps = scale * 2, 0
    optimizer.dynamic_scale.assign(scale)
    optimizer.step_counter.assign(finite_steps)


def without_all_reduce(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """Return the optimizer that updates the variables, without a loss scale, with gradients that are already summed.

    On a replica Keras sums them over the replicas by itself, after it has clipped those of each replica alone.
    """
    updater = optimizer.inner_optimizer if is_scaled(optimizer) else optimizer
    updater._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables  # noqa: SLF001 (Keras has no public way)
    return updater


def loss_scale(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the factor that the loss is multiplied by before the gradients are computed: 1 except in float16."""
    return float(optimizer.dynamic_scale.numpy()) if is_scaled(optimizer) else 1.0
