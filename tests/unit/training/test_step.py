"""The training step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import LABELS, examples, refolded, small_classifier

from job.config.settings import Settings
from job.training.step import compile_step

if TYPE_CHECKING:
    from job.config.settings import StageName


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 1e-3}])
def test_parts_of_a_batch_add_up(options: dict[str, float]) -> None:
    """A batch in parts of any size takes the same step as the whole batch, also where the gradients are clipped."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    data, before = examples(classifier, "fine_tuning"), classifier.state()
    data = dataclasses.replace(data, class_weights=np.float32([0.5, 1.5]))
    results = []
    for size in (None, 3, 1):
        classifier.load_state(before)
        optimizer = keras.optimizers.SGD(1.0, **options)
        step = compile_step(classifier, data, optimizer, size, 0.1)
        loss, correct = step(data.inputs(np.arange(8)), LABELS[:8], np.zeros(2, np.int32))
        results.append((float(loss), int(correct), classifier.state()))

    for loss, correct, state in results[1:]:
        assert (results[0][0], results[0][1]) == (pytest.approx(loss, rel=1e-5), correct)
        for path, value in state.items():
            np.testing.assert_allclose(value, results[0][2][path], rtol=1e-4, atol=1e-6)


def test_clipped_step_has_the_norm_of_the_setting() -> None:
    """The limit holds for the sum over the parts of a batch, not for each part."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    data, before = examples(classifier, "fine_tuning"), classifier.state()
    step = compile_step(classifier, data, keras.optimizers.SGD(1.0, global_clipnorm=1e-3), 3)
    step(data.inputs(np.arange(8)), LABELS[:8], np.zeros(2, np.int32))

    moved = [np.sum((value - before[path]) ** 2) for path, value in classifier.state().items()]
    assert pytest.approx(1e-3, rel=1e-3) == float(np.sqrt(np.sum(moved)))


def test_smoothing_and_weights_are_of_the_loss() -> None:
    """The summed loss of a step is that of the classifier with the weights of the examples and the smoothing."""
    classifier = small_classifier()
    classifier.set_trainable("feature_extraction")
    weights = np.float32([0.5, 1.5])
    data = dataclasses.replace(examples(classifier, "feature_extraction"), class_weights=weights)
    inputs = data.inputs(np.arange(8))
    expected = classifier.losses(data.logits(inputs), LABELS[:8], class_weights=weights, label_smoothing=0.3)
    step = compile_step(classifier, data, keras.optimizers.SGD(1.0), None, 0.3)

    loss, _ = step(inputs, LABELS[:8], np.zeros(2, np.int32))

    assert pytest.approx(float(np.sum(expected)), rel=1e-5) == float(loss)


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize(("stage", "views"), [("fine_tuning", 4), ("feature_extraction", 0)])
def test_augmented_step(stage: StageName, views: int, *, xla: bool) -> None:
    """Augmentation runs outside of what XLA compiles; a batch that is split takes the same step as the whole one."""
    classifier = refolded(small_classifier(), xla=xla)
    classifier.set_trainable(stage)
    data, before = examples(classifier, stage, augmented(mixup=0.4, views=views)), classifier.state()
    assert data.augmentation is not None
    results = []
    for size in (None, 3):
        classifier.load_state(before)
        step = compile_step(classifier, data, keras.optimizers.SGD(1.0), size)
        loss, correct = step(data.load_for_training(np.arange(8), epoch=1), LABELS[:8], np.zeros(2, np.int32))
        results.append((float(loss), int(correct), classifier.state()))

    (loss, correct, state), (loss_in_parts, correct_in_parts, state_in_parts) = results
    assert (pytest.approx(loss, rel=1e-5), correct) == (loss_in_parts, correct_in_parts)
    for path, value in state.items():
        np.testing.assert_allclose(value, state_in_parts[path], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_augmented_inputs_do_not_depend_on_the_parts(micro_batch: int | None) -> None:
    """What the model sees of an augmented batch, and the labels of the blended images, are those of `augment`."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    seen: list[bytes] = []
    data = examples(classifier, "fine_tuning", augmented(mixup=0.4))
    logits = data.training_logits

    def spy(pixels: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
        tf.py_function(lambda values: seen.append(values.numpy().tobytes()), [pixels], [])
        return logits(pixels, dropout_seed)

    inputs = data.load_for_training(np.arange(8), epoch=0)
    step = compile_step(
        classifier, dataclasses.replace(data, training_logits=spy), keras.optimizers.SGD(1.0), micro_batch
    )
    loss, _ = step(inputs, LABELS[:8], np.zeros(2, np.int32))

    pixels, partner_labels, share = data.augment((tf.constant(inputs[0]), inputs[1]), tf.constant(LABELS[:8]))
    assert pixels.numpy().tobytes() == b"".join(seen)
    assert not np.array_equal(inputs[0], pixels)
    assert np.isfinite(float(loss))
    assert {8} == {len(partner_labels), len(share)}


@pytest.mark.slow
def test_mixup_mixes_the_losses() -> None:
    """The loss is the sum of both labels' losses by their shares; a prediction is correct if it is the image's own."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    data = examples(classifier, "fine_tuning", augmented(mixup=0.4))
    inputs, labels = data.load_for_training(np.arange(8), epoch=0), LABELS[:8]
    pixels, partner_labels, share = data.augment((tf.constant(inputs[0]), inputs[1]), tf.constant(labels))
    logits = classifier.training_logits(pixels, np.zeros(2, np.int32))
    own, other = (classifier.losses(logits, tf.constant(of)).numpy() for of in (labels, np.asarray(partner_labels)))
    expected = float((share * own + (1 - share) * other).sum())
    right = int((classifier.predictions(logits).numpy() == labels).sum())

    loss, correct = compile_step(classifier, data, keras.optimizers.SGD(1.0))(inputs, labels, np.zeros(2, np.int32))

    assert (pytest.approx(expected, rel=1e-5), right) == (float(loss), int(correct))


@pytest.mark.slow
def test_step_without_augmentation_has_no_more_operations() -> None:
    """With augmentation off the step computes gradients of its inputs as they are."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    graph = compile_step(classifier, examples(classifier, "fine_tuning"), keras.optimizers.SGD(1.0))
    traced = graph.get_concrete_function().graph

    [call] = [operation for operation in traced.get_operations() if operation.type == "StatefulPartitionedCall"]
    first = [tensor.op for tensor in call.inputs[:4]]
    assert ["Placeholder", "Placeholder", "Placeholder", "StridedSlice"] == [operation.type for operation in first]
    definition = traced.as_graph_def()
    used = {node.op for function in (definition, *definition.library.function) for node in nodes_of(function)}
    assert not used & {"ImageProjectiveTransformV3", "Round"}
    augmented_step = compile_step(
        classifier, examples(classifier, "fine_tuning", augmented()), keras.optimizers.SGD(1.0)
    ).get_concrete_function()
    assert "ImageProjectiveTransformV3" in {operation.type for operation in augmented_step.graph.get_operations()}


def nodes_of(definition: Any) -> Any:
    """Return the nodes of a graph, or of a function in it."""
    return definition.node if hasattr(definition, "node") else definition.node_def


def augmented(*, views: int = 4, **more: float) -> Settings:
    """Return the settings of a run with augmentation."""
    changes = {"flip": "both", "rotation": 20, "shift": 0.1, "brightness": 0.1, "contrast": 0.2, **more}
    return Settings.model_validate({"augmentation": changes, "feature_extraction": {"views": views}})
