"""The weights that are published, and those at the end of each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tensorflow as tf
from classifiers import LABELS, examples, small_classifier
from short_stages import ignore, run, same_arrays, settings

from job.config.settings import STAGES
from job.observability.progress import Progress
from job.training import kept_weights, prediction, stages
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.model.classifier import Classifier

eagerly = pytest.mark.usefixtures("functions_run_eagerly")


@pytest.fixture
def classifier() -> Classifier:
    """A classifier as the job builds it, but for its base model: two convolutions with BatchNormalization."""
    return small_classifier()


def ignore_images(_: int) -> None:
    """Count nothing."""


@eagerly
def test_keep_best_and_last(classifier: Classifier) -> None:
    """`best` publishes the weights of the lowest validation loss over both stages, `last` those at the end."""
    data, weights = examples(classifier, "fine_tuning"), []

    def spoil(_: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        if now:
            weights.append(classifier.state())
        else:
            classifier.output.bias.assign([100.0 * len(weights)])

    state = run(classifier, "feature_extraction", epochs=1)
    stages.run("fine_tuning", settings(), classifier, data, state, progress=Progress(), save=spoil)
    _, best, last = state.history
    assert best.val_loss < state.history[0].val_loss
    assert best.val_loss < last.val_loss

    assert last == kept_weights.load_kept_weights("last", classifier, state, settings())
    assert same_arrays(weights[1], classifier.state())
    assert best == kept_weights.load_kept_weights("best", classifier, state, settings())
    assert same_arrays(weights[0], classifier.state())
    logits = prediction.predict(data, data.validation, 4, state, Progress(), ignore_images)
    loss, accuracy = prediction.measure(classifier, logits, LABELS[data.validation])
    assert (best.val_loss, best.val_accuracy) == (pytest.approx(loss, rel=1e-4), accuracy)


@eagerly
def test_last_of_a_stage_that_restores_its_best(classifier: Classifier) -> None:
    """Where the last stage ended with the weights of its best epoch, `last` publishes these, under that epoch."""
    data, state = examples(classifier, "feature_extraction"), TrainingState()

    def spoil(_: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        if not now and state.epoch:
            classifier.output.bias.assign([100.0])

    chosen = settings(restore=True)
    stages.run("feature_extraction", chosen, classifier, data, state, progress=Progress(), save=spoil)
    first, second = state.history

    assert first.val_loss < second.val_loss
    assert first == kept_weights.load_kept_weights("last", classifier, state, chosen)
    assert same_arrays(state.best_weights, classifier.state())


def train_both(classifier: Classifier, capture_at: int | None = None) -> tuple[TrainingState, TrainingState | None]:
    """Train both stages; return the state at the end, and one that was captured at the n-th save of stage 2."""
    state, captured = TrainingState(), []
    for stage in STAGES:
        save = ignore if stage == STAGES[0] else lambda capture, **_: captured.append(capture())
        data = examples(classifier, stage)
        stages.run(stage, settings(), classifier, data, state, progress=Progress(), save=save)
    return state, None if capture_at is None else captured[capture_at]


@pytest.mark.slow
def test_end_weights(classifier: Classifier) -> None:
    """The end of stage 1 is its head on the base model that the run began with, also after a resume in stage 2."""
    tf.config.experimental.enable_op_determinism()
    before = classifier.state()
    run(classifier, "feature_extraction")
    after_stage_1 = classifier.state()
    classifier.load_state(before)
    state, stopped = train_both(classifier, capture_at=2)
    expected = {"feature_extraction": after_stage_1, "fine_tuning": classifier.state()}
    ends = kept_weights.end_weights(classifier, state)

    assert stopped.step > 0
    resumed = TrainingState.from_document(stopped.document(), stopped.arrays())
    classifier.load_state(resumed.weights)
    data = examples(classifier, "fine_tuning")
    stages.run("fine_tuning", settings(), classifier, data, resumed, progress=Progress(), save=ignore)

    for found in (ends, kept_weights.end_weights(classifier, resumed)):
        assert expected.keys() == found.keys()
        for stage, weights in expected.items():
            assert same_arrays(weights, found[stage])
    assert not same_arrays(after_stage_1, expected["fine_tuning"])


@pytest.mark.slow
@eagerly
def test_end_weights_of_one_stage(classifier: Classifier) -> None:
    """A stage without epochs has no end; nor has stage 1 if an older version saved the state that followed it."""
    state = run(classifier, "feature_extraction")
    assert {"feature_extraction"} == set(kept_weights.end_weights(classifier, state))
    run(classifier, "fine_tuning", state)
    assert set(STAGES) == set(kept_weights.end_weights(classifier, state))
    state.feature_extraction_head = {}
    assert {"fine_tuning"} == set(kept_weights.end_weights(classifier, state))
    only_second = run(classifier, "fine_tuning")
    assert {"fine_tuning"} == set(kept_weights.end_weights(classifier, only_second))
