"""The training step in each precision, with XLA, and compiled: slow to trace, so not in the unit tier."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import LABELS, examples, refolded, small_classifier
from short_stages import (
    EVERYTHING,
    Breaker,
    Recorder,
    captured_states,
    ignore,
    resume_everywhere,
    run,
    same_arrays,
    settings,
)

from job.config.settings import STAGES, StageName
from job.observability.progress import Progress
from job.runtime.device import Precision
from job.training import prediction, stages
from job.training.state import TrainingState
from job.training.step import compile_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.model.classifier import Classifier

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


eagerly = pytest.mark.usefixtures("functions_run_eagerly")


@pytest.fixture
def classifier() -> Classifier:
    """A classifier as the job builds it, but for its base model: two convolutions with BatchNormalization."""
    return small_classifier()


@pytest.mark.parametrize("stage", STAGES)
def test_compiled_resume_ends_in_the_same_bits(classifier: Classifier, stage: StageName) -> None:
    """A compiled step, resumed in the middle of the second epoch, ends in the same bits."""
    resume_everywhere(classifier, stage, [7])


@pytest.mark.parametrize("stage", STAGES)
def test_compiled_resume_with_every_option(classifier: Classifier, stage: StageName) -> None:
    """So does one with schedule, decay, clipping, smoothing and class weights, stopped early."""
    resume_everywhere(classifier, stage, [7], class_weights=np.float32([0.5, 1.5]), **EVERYTHING)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(classifier: Classifier, precision: Precision) -> None:
    """Half precision is for the training step alone, and learns about the same; all that is measured is float32."""
    before = classifier.state()
    expected = run(classifier, "fine_tuning", epochs=3).history
    classifier.load_state(before)
    classifier = refolded(classifier, training_precision=precision)
    data, state = examples(classifier, "fine_tuning"), run(classifier, "fine_tuning", epochs=3)
    inputs = data.inputs(np.arange(8))

    assert [result.loss for result in state.history] == pytest.approx([r.loss for r in expected], rel=0.05)
    assert state.history[-1].loss < state.history[0].loss
    assert {"float32"} == {str(value.dtype) for value in classifier.state().values()}
    assert {"float32"} == {layer.compute_dtype for layer in classifier.base_model.layers}
    # The training step computes something else than what is measured, and that is float32 to the last bits.
    measured, trained = data.predict(inputs).numpy(), data.training_logits(inputs, tf.zeros(2, tf.int32)).numpy()
    assert np.abs(measured - trained).max() > 1e-5
    plain = keras.Model(classifier.model.input, classifier.model.get_layer("fc1").input)(inputs)
    np.testing.assert_allclose(classifier.features(tf.constant(inputs)), plain, rtol=1e-4, atol=1e-5)
    loss, accuracy = prediction.measure(classifier, data.predict(data.inputs(data.validation)).numpy(), LABELS[8:])
    assert (state.history[-1].val_loss, state.history[-1].val_accuracy) == (pytest.approx(loss, rel=1e-5), accuracy)


def test_gradients_that_overflow(classifier: Classifier) -> None:
    """A step in float16 whose gradients overflow is taken again with half of the loss scale: none is lost."""
    classifier = refolded(classifier, training_precision="float16")
    recorder, states = Recorder(), []
    state = TrainingState(stage="fine_tuning")

    def start_high(capture: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        if not now:
            states.append(capture())

    data = examples(classifier, "fine_tuning")
    stages.run("fine_tuning", settings(epochs=1), classifier, data, state, progress=Progress(), save=start_high)
    resumed = dataclasses.replace(states[0], history=[])
    resumed.optimizer["loss_scale/dynamic_scale"] = np.float32(2.0**30)
    recorded = Progress([recorder])
    stages.run("fine_tuning", settings(epochs=1), classifier, data, resumed, progress=recorded, save=start_high)

    halved = [event.facts["loss_scale"] for event in recorder.events if event.name == "training.loss_scale_halved"]
    assert halved == [2.0 ** (29 - n) for n in range(len(halved))]
    assert halved
    taken = [saved.optimizer["adam/iteration"] for saved in states if saved.step]
    assert taken == [saved.step for saved in states if saved.step]


@eagerly
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_stage_1_is_float32(classifier: Classifier, precision: Precision) -> None:
    """The head is trained in float32 for every training precision: the same bits, and no scaled loss."""
    tf.config.experimental.enable_op_determinism()
    before, results = classifier.state(), []
    for training_precision in ("float32", precision):
        classifier.load_state(before)
        classifier = refolded(classifier, training_precision=training_precision)
        run(classifier, "feature_extraction")
        results.append(classifier.state())

    assert same_arrays(*results)


@eagerly
@pytest.mark.parametrize(("began", "resumed"), list(itertools.product(PRECISIONS, PRECISIONS)))
@pytest.mark.parametrize("stage", STAGES)
def test_resume_in_another_precision(
    classifier: Classifier, stage: StageName, began: Precision, resumed: Precision
) -> None:
    """A run stopped within an epoch resumes in any precision: Adam's moments and count of steps stay as they were."""
    classifier = refolded(classifier, training_precision=began)
    before = classifier.state()
    stopped = captured_states(classifier, stage)[1]
    assert (0, 2) == (stopped.epoch, stopped.step)

    classifier.load_state(before)
    classifier = refolded(classifier, training_precision=resumed)
    state = TrainingState.from_document(stopped.document(), stopped.arrays())
    classifier.load_state(state.weights)
    trainer = stages.StageTrainer(settings(), classifier, examples(classifier, stage), state, Progress(), ignore)
    restored = trainer.capture().optimizer
    adam = {path for path in restored if path.startswith("adam/")}
    assert 1 + 1 + 2 * len(classifier.model.trainable_variables) == len(adam)  # count, rate, two moments
    assert same_arrays({path: stopped.optimizer[path] for path in adam}, {path: restored[path] for path in adam})
    if restored.keys() == stopped.optimizer.keys():
        assert same_arrays(stopped.optimizer, restored)
    while state.epoch < 2:
        trainer.train_epoch()
    assert 2 == len(state.history)
    assert np.isfinite([result.val_loss for result in state.history]).all()


@eagerly
@pytest.mark.parametrize(("began", "resumed"), [("float32", "float16"), ("float16", "bfloat16")])
def test_going_back_in_another_precision(classifier: Classifier, began: Precision, resumed: Precision) -> None:
    """A loss that is not finite, after a resume in another precision, goes back to the epoch's start all the same."""
    classifier = refolded(classifier, training_precision=began)
    stopped = captured_states(classifier, "fine_tuning")[6]
    assert (1, 1) == (stopped.epoch, stopped.step)

    classifier = refolded(classifier, training_precision=resumed)
    state = TrainingState.from_document(stopped.document(), stopped.arrays())
    classifier.load_state(state.weights)
    data, broken = examples(classifier, "fine_tuning"), Breaker(classifier, after=1)
    stages.run("fine_tuning", settings(), classifier, data, state, progress=Progress(), save=broken)

    assert (2, 0.5) == (len(state.history), state.learning_rate_scale)
    assert all(np.isfinite(value).all() for value in classifier.state().values())


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_xla(classifier: Classifier, micro_batch: int | None) -> None:
    """Compiled with XLA a step does the same, whole or in parts; all but the optimizer is compiled."""
    data, results = examples(classifier, "fine_tuning"), []
    classifier.set_trainable("fine_tuning")
    before = classifier.state()
    for xla in (False, True):
        classifier.load_state(before)
        classifier = refolded(classifier, xla=xla)
        step = compile_step(classifier, data, keras.optimizers.SGD(1.0), micro_batch)
        loss, correct = step(data.inputs(np.arange(8)), LABELS[:8], np.zeros(2, np.int32))
        results.append((float(loss), int(correct), classifier.state()))
        if micro_batch is None:
            calls = [node for node in step.get_concrete_function().graph.as_graph_def().node if "Call" in node.op]
            assert xla == any(node.attr["_XlaMustCompile"].b for node in calls)

    (loss, correct, plain), (xla_loss, xla_correct, compiled) = results
    assert (loss, correct) == (pytest.approx(xla_loss, rel=1e-4), xla_correct)
    assert any(plain[path].tobytes() != before[path].tobytes() for path in before)
    for path, value in compiled.items():
        np.testing.assert_allclose(value, plain[path], rtol=1e-3, atol=1e-5)
