"""The training step."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from classifiers import LABELS, examples, small_classifier

from job.training.step import compile_step


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
