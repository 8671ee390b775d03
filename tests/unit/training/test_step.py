"""The training step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from classifiers import LABELS, examples, small_classifier

from job.training.step import compile_step


def test_parts_of_a_batch_add_up() -> None:
    """A batch in parts of any size takes the same step as the whole batch."""
    classifier = small_classifier()
    classifier.set_trainable("fine_tuning")
    data, before = examples(classifier, "fine_tuning"), classifier.state()
    results = []
    for size in (None, 3, 1):
        classifier.load_state(before)
        optimizer = keras.optimizers.SGD(1.0)
        step = compile_step(classifier, data, optimizer, size)
        loss, correct = step(data.inputs(np.arange(8)), LABELS[:8], np.zeros(2, np.int32))
        results.append((float(loss), int(correct), classifier.state()))

    for loss, correct, state in results[1:]:
        assert (results[0][0], results[0][1]) == (pytest.approx(loss, rel=1e-5), correct)
        for path, value in state.items():
            np.testing.assert_allclose(value, results[0][2][path], rtol=1e-4, atol=1e-6)
