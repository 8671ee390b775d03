"""What each stage learns from."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from classifiers import refolded, small_classifier

from job.training.examples import create_examples

ROWS = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([], np.intp)}


def test_each_stage_has_its_inputs_and_its_precision() -> None:
    """Stage 1 reads features in float32; stage 2 reads pixels in the training precision, which its optimizer needs."""
    classifier = refolded(small_classifier(), training_precision="float16")
    pixels, features = np.zeros((3, 32, 32, 3), np.uint8), np.zeros((3, classifier.feature_size), np.float32)
    images = SimpleNamespace(pixels=pixels.__getitem__, manifest=SimpleNamespace(label=np.array([0, 1, 0])))

    examples = create_examples(classifier, images, features, ROWS, seed=7)

    assert ["feature_extraction", "fine_tuning"] == list(examples)
    assert ["float32", "float16"] == [stage.precision for stage in examples.values()]
    assert [(2, classifier.feature_size), (2, 32, 32, 3)] == [
        stage.inputs(stage.train).shape for stage in examples.values()
    ]
