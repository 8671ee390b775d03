"""What each stage trains on: features or pixels, with the labels of the rows."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from classifiers import LABELS, examples, refolded, small_classifier

from job.config.settings import STAGES


@pytest.mark.parametrize(("stage", "shape"), [("feature_extraction", (None, 8)), ("fine_tuning", (None, 32, 32, 3))])
def test_inputs_fit_their_spec(stage: str, shape: tuple[int | None, ...]) -> None:
    """Stage 1 reads features and stage 2 pixels, by rows in the order asked for."""
    data = examples(small_classifier(), stage)

    inputs = data.inputs(np.array([5, 0]))

    assert shape == tuple(data.spec.shape)
    assert data.spec.is_compatible_with(tf.constant(inputs))
    assert np.array_equal(inputs[::-1], data.inputs(np.array([0, 5])))


def test_stages_share_rows_and_labels() -> None:
    """Both stages learn from and measure with the same images, and predict the same before any training."""
    classifier = small_classifier()
    first, second = (examples(classifier, stage) for stage in STAGES)

    assert np.array_equal(LABELS, first.labels)
    assert np.array_equal(first.labels, second.labels)
    assert (list(range(8)), [8, 9, 10, 11]) == (second.train.tolist(), second.validation.tolist())
    logits = [data.predict(data.inputs(data.validation)).numpy() for data in (first, second)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def test_only_stage_2_trains_in_another_precision() -> None:
    """The head is trained in float32 whatever the training precision is."""
    classifier = refolded(small_classifier(), training_precision="bfloat16")

    assert ["float32", "bfloat16"] == [examples(classifier, stage).precision for stage in STAGES]
