"""The training step."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras
    from numpy.typing import NDArray

    from job.model.classifier import Classifier
    from job.training.examples import Examples


_LABELS_AND_SEED = (tf.TensorSpec((None,), tf.int32), tf.TensorSpec((2,), tf.int32))
Step: TypeAlias = "Callable[[Any, NDArray[Any], NDArray[Any]], tuple[Any, Any]]"
"""A compiled training step: inputs (as `Examples.load_for_training`), labels, dropout seed -> summed loss and number of
correct predictions."""


def compile_step(
    classifier: Classifier,
    examples: Examples,
    optimizer: keras.optimizers.Optimizer,
    micro_batch: int | None = None,
    label_smoothing: float = 0.0,
) -> Step:
    """Return the training step.

    It trains the variables that are trainable now: a flag changed later has no effect on it.

    Args:
        classifier: the model to train.
        examples: define the step's inputs and their logits.
        optimizer: updates the variables.
        micro_batch: images whose gradients are computed at once; None: the whole batch.
        label_smoothing: of the loss.
    """
    variables = classifier.model.trainable_variables
    if not optimizer.built:  # note: a second build would reset the loss scale
        optimizer.build(variables)
    compute_gradients = gradient_function(classifier, examples, optimizer, label_smoothing)
    compiled_gradients = compile_gradients(compute_gradients, classifier, examples)

    def step(inputs: Any, labels: tf.Tensor, dropout_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, *blend = examples.augment(inputs, labels)  # note: XLA has no kernel for the warp
        gradients, loss_sum, correct = compiled_gradients(inputs, labels, dropout_seed, tf.shape(labels)[0], *blend)
        # The optimizer must not change before all gradients are computed: if the backward pass runs out of memory, the
        # step is repeated. Without the dependency, the failed call had already incremented Adam's iteration count.
        # note: on identities, because once grappler has inlined the call, a dependency on the call itself covers only
        # its side effects
        gradients = [tf.identity(gradient) for gradient in gradients]
        with tf.control_dependencies(gradients):
            optimizer.apply(gradients, variables)
        return loss_sum, correct

    if micro_batch is None:
        compiled: Step = tf.function(step, input_signature=[examples.step_spec, *_LABELS_AND_SEED], autograph=False)
        return compiled
    augment = _compile_augmentation(examples)

    def step_in_micro_batches(
        inputs: Any, labels: NDArray[Any], dropout_seed: NDArray[Any]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        sums: list[Any] = []
        inputs, *blend = augment(inputs, labels)
        for start in range(0, len(labels), micro_batch):
            rows = slice(start, start + micro_batch)
            part = [array[rows] for array in (inputs, labels)]
            gradients, *values = compiled_gradients(
                *part, dropout_seed + start, len(labels), *(array[rows] for array in blend)
            )
            values = [*gradients, *values]
            sums = [total + value for total, value in zip(sums, values, strict=True)] if sums else values
        optimizer.apply(sums[:-2], variables)
        return sums[-2], sums[-1]

    return step_in_micro_batches


def _compile_augmentation(examples: Examples) -> Callable[[Any, NDArray[Any]], tuple[Any, ...]]:
    """Return `Examples.augment` for whole batches that are then split: mixup blends images of different parts."""
    if examples.augmentation is None:
        return examples.augment
    compiled: Callable[[Any, NDArray[Any]], tuple[Any, ...]] = tf.function(
        examples.augment, input_signature=[examples.step_spec, _LABELS_AND_SEED[0]], autograph=False
    )
    return compiled


Gradients: TypeAlias = "Callable[..., tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]]"
"""The part of the step that XLA may compile: inputs, labels, dropout seed, images of the whole batch, with mixup the
partners' labels and the own shares -> the scaled gradients of the trainable variables, the summed loss, and the number
of correct predictions. With mixup, a prediction is correct if it is the image's own label, whose share is the larger
one."""


def compile_gradients(
    compute: Gradients, classifier: Classifier, examples: Examples, *, is_weighted: bool = False
) -> Gradients:
    """Return what `gradient_function` returned, compiled, by XLA where the classifier uses it."""
    weights = [tf.TensorSpec((None,), tf.float32)] if is_weighted else []
    compiled: Gradients = tf.function(
        compute,
        input_signature=[
            *(examples.gradient_spec, *_LABELS_AND_SEED, tf.TensorSpec((), tf.int32)),
            *examples.blend_spec,
            *weights,
        ],
        autograph=False,
        jit_compile=classifier.xla or None,
    )
    return compiled


def gradient_function(
    classifier: Classifier,
    examples: Examples,
    optimizer: keras.optimizers.Optimizer,
    label_smoothing: float,
    *,
    is_weighted: bool = False,
) -> Gradients:
    """Return the function that computes the gradients.

    Args:
        classifier: the model to train.
        examples: define the inputs and their logits.
        optimizer: scales the loss.
        label_smoothing: of the loss.
        is_weighted: the function's last argument is a weight of each image, float32 [n]: 0 for one that another replica
            has as well.
    """
    variables = classifier.model.trainable_variables

    def compute_gradients(
        inputs: tf.Tensor, labels: tf.Tensor, dropout_seed: tf.Tensor, images: tf.Tensor, *blend: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        weights = None
        if is_weighted:
            blend, weights = blend[:-1], blend[-1]
        with tf.GradientTape() as tape:
            logits = examples.training_logits(inputs, dropout_seed)
            weighted = functools.partial(
                classifier.losses, class_weights=examples.class_weights, label_smoothing=label_smoothing
            )
            losses = weighted(logits, labels)
            if blend:
                partner_labels, share = blend
                losses = share * losses + (1 - share) * weighted(logits, partner_labels)
            if weights is not None:
                losses *= weights
            loss = optimizer.scale_loss(tf.reduce_sum(losses) / tf.cast(images, losses.dtype))
        is_correct = tf.equal(classifier.predictions(logits), labels)
        if weights is not None:
            is_correct &= weights > 0
        correct = tf.math.count_nonzero(is_correct, dtype=tf.int32)
        return tape.gradient(loss, variables), tf.reduce_sum(losses), correct

    return compute_gradients
