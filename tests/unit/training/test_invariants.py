"""The invariants of the recipe notice a model that is not trained as the recipe says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
from classifiers import LABELS, examples, small_classifier

from job import errors
from job.config.settings import STAGES, FineTuningSettings
from job.training import invariants
from job.training.step import compile_step

if TYPE_CHECKING:
    from job.config.settings import StageName
    from job.model.classifier import Classifier


@pytest.fixture
def classifier() -> Classifier:
    """A classifier as the job builds it, but for its base model: two convolutions with BatchNormalization."""
    return small_classifier()


def test_other_trainable_variables_are_noticed(classifier: Classifier) -> None:
    """Flags that are not the stage's are noticed before its first step."""
    classifier.set_trainable("feature_extraction")

    with pytest.raises(errors.InvariantError, match=r"fine_tuning must train 9 variables, and the model has 4"):
        invariants.StageInvariants(classifier, "fine_tuning")


def test_moved_statistics_are_noticed(classifier: Classifier) -> None:
    """BatchNormalization that adapts to the data, as `fit` without the flags would let it, ends the run."""
    classifier.set_trainable("fine_tuning")
    watch = invariants.StageInvariants(classifier, "fine_tuning")
    for layer in classifier.normalizations():
        layer.trainable = True
    classifier.model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", run_eagerly=True)
    classifier.model.train_on_batch(np.full((2, 32, 32, 3), 200, np.uint8), np.array([[0], [1]]))

    with pytest.raises(errors.InvariantError, match=r"a BatchNormalization variable changed in fine_tuning: expected"):
        watch.check(is_complete=True)


def test_moved_backbone_in_stage_1_is_noticed(classifier: Classifier) -> None:
    """A backbone that moves while it is frozen ends the run, naming the variable."""
    classifier.set_trainable("feature_extraction")
    watch = invariants.StageInvariants(classifier, "feature_extraction")
    kernel = classifier.base_model.get_layer("a").kernel
    kernel.assign(kernel + 0.5)

    with pytest.raises(errors.InvariantError, match=r"a frozen variable changed .* a/kernel .* by up to 0.5"):
        watch.check(is_complete=True)


def test_unmoved_backbone_in_stage_2_is_noticed(classifier: Classifier) -> None:
    """A step compiled before the flags changed trains the head alone: stage 2 must notice."""
    classifier.set_trainable("feature_extraction")
    data = examples(classifier, "fine_tuning")
    stale = compile_step(classifier, data, keras.optimizers.Adam(1e-3))
    classifier.set_trainable("fine_tuning")
    watch = invariants.StageInvariants(classifier, "fine_tuning")
    stale(data.inputs(np.arange(8)), LABELS[:8], np.zeros(2, np.int32))

    with pytest.raises(errors.InvariantError, match=r"none of its 5 trainable variables moved"):
        watch.check(is_complete=True)
    assert 9 == errors.InvariantError.exit_code


def test_layers_before_the_first_trained_one_stay_frozen() -> None:
    """With `from_layer`, the layers before it are frozen in both stages, and what moves among them is noticed."""
    classifier = small_classifier(FineTuningSettings(from_layer="b"))
    classifier.set_trainable("fine_tuning")
    watch = invariants.StageInvariants(classifier, "fine_tuning")
    trainable = {variable.path for variable in classifier.model.trainable_variables}

    assert {path for path in trainable if path.startswith("b/")}
    assert not {path for path in trainable if path.startswith("a/") or "_BN/" in path}
    kernel = classifier.base_model.get_layer("a").kernel
    kernel.assign(kernel + 0.5)
    with pytest.raises(errors.InvariantError, match=r"a/kernel"):
        watch.check(is_complete=True)


@pytest.mark.parametrize("stage", STAGES)
def test_the_state_of_dropout_is_no_weight(stage: StageName) -> None:
    """Keras's Dropout layer has a random state, which no stage trains and no checkpoint holds."""
    classifier = small_classifier(dropout=0.5)
    classifier.set_trainable(stage)

    invariants.StageInvariants(classifier, stage).check(is_complete=False)

    assert not any("seed" in path for path in classifier.state())
    classifier.load_state(classifier.state())
