"""The learning-rate range test; tests/pipeline/test_training_options.py makes a real one."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from classifiers import LABELS, examples, small_classifier
from short_stages import same_arrays, settings
from surveys import prepared, survey

from job.config.settings import STAGES, StageName
from job.data.labels import TRAIN, VALIDATION
from job.observability.progress import Progress
from job.training import stages
from job.trials import lr_finder

pytestmark = pytest.mark.usefixtures("functions_run_eagerly")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_curve(stage: StageName) -> None:
    """The rates rise evenly on a logarithmic scale; the losses are those of the batches; the weights are left alone."""
    classifier = small_classifier()
    data, before = examples(classifier, stage), classifier.state()
    curve = lr_finder._curve(stage, settings(), classifier, data, Progress(), steps=8)

    np.testing.assert_allclose(np.geomspace(1e-7, 1.0, 8)[: len(curve.rates)], curve.rates)
    assert same_arrays(before, classifier.state())
    expected = classifier.losses(data.logits(data.inputs(np.arange(8))), LABELS[:8]).numpy().mean()
    assert [float(expected)] * 2 == pytest.approx(curve.losses[:2], rel=1e-4)
    assert (1e-3, stage) == (curve.configured, curve.stage)


def test_divergence_ends_the_test() -> None:
    """A loss that is not finite ends the test, and is not among the losses."""
    classifier = small_classifier()
    data = examples(classifier, "feature_extraction")
    calls = itertools.count()

    def inputs(rows: np.ndarray) -> np.ndarray:
        # note: the losses before the first step take three batches
        return data.inputs(rows) * (np.nan if next(calls) >= 3 + 4 else 1)

    broken = dataclasses.replace(data, inputs=inputs)
    curve = lr_finder._curve("feature_extraction", settings(), classifier, broken, Progress(), steps=20)

    assert (True, 4) == (curve.diverged, len(curve.losses))


def test_batches_are_those_of_the_run() -> None:
    """The batches are those of the run's epochs, one after the other, with the smaller last ones."""
    data = examples(small_classifier(), "feature_extraction")
    batches = [*itertools.islice(lr_finder._batches("fine_tuning", settings(), data), 6)]

    assert [(3, 0), (3, 0), (2, 0), (3, 1), (3, 1), (2, 1)] == [(len(rows), epoch) for rows, epoch in batches]
    for epoch in (0, 1):
        expected = stages.order(7, "fine_tuning", epoch, 8)
        assert np.array_equal(expected, np.concatenate([rows for rows, of in batches if of == epoch]))


def test_sample_is_of_the_train_split() -> None:
    """The sample has no held-out image; the labels are counted in the whole split."""
    codes = [VALIDATION if number % 3 == 0 else TRAIN for number in range(30)]
    found = prepared(survey([number % 2 for number in range(30)]), codes)
    sample, counts = lr_finder._sample(found, seed=7, images=5)

    names = [found.usable.names[number] for number in range(30) if codes[number] == TRAIN]
    assert 5 == len(sample)
    assert set(sample.names) <= set(names)
    assert 20 == counts.sum()


@pytest.mark.slow
def test_head_is_trained_before_stage_2() -> None:
    """The head is trained as stage 1 does, in all of its epochs also where the settings would stop it early."""
    heads = []
    for chosen in (settings(patience=1, min_delta=9.0, epochs=3), settings(epochs=3)):
        classifier = small_classifier()
        lr_finder._train_head(chosen, classifier, examples(classifier, "feature_extraction"), Progress())
        heads.append(classifier.head_state())

    assert same_arrays(*heads)
