"""Training by two replicas."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tensorflow as tf
from classifiers import examples, refolded, small_classifier
from short_stages import EVERYTHING, Recorder, ignore, same_arrays, settings

from job import errors
from job.config.settings import AugmentationSettings, Settings
from job.observability.progress import Progress
from job.runtime import signals
from job.training import replica_checks, stages, strategy
from job.training.replicated_step import ReplicatedStep
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.config.settings import StageName
    from job.model.classifier import Classifier
    from job.training.examples import Examples
    from job.training.strategy import Replicas

AUGMENTED = Settings(
    augmentation=AugmentationSettings(mixup=0.4, flip="horizontal", rotation=20, brightness=0.1, contrast=0.1)
)
STAGES: tuple[StageName, ...] = ("feature_extraction", "fine_tuning")


def create(
    stage: StageName, replicas: Replicas | None, of_run: Settings | None = None, **options: Any
) -> tuple[Classifier, Examples]:
    """Return a classifier and its examples for two replicas, or for one device."""
    with strategy.scope(replicas):
        classifier = refolded(small_classifier(), **options)
    classifier.set_trainable(stage)
    return classifier, dataclasses.replace(examples(classifier, stage, of_run), replicas=replicas)


def train(
    stage: StageName,
    replicas: Replicas | None,
    of_run: Settings | None = None,
    state: TrainingState | None = None,
    options: dict[str, Any] | None = None,
    **values: Any,
) -> tuple[Classifier, TrainingState]:
    """Train a stage of a new classifier."""
    classifier, data = create(stage, replicas, of_run, **options or {})
    state = state or TrainingState()
    if state.weights:
        classifier.load_state(state.weights)
    stages.run(stage, settings(**values), classifier, data, state, progress=Progress(), save=ignore)
    return classifier, state


def capture_all(stage: StageName, replicas: Replicas | None) -> tuple[Classifier, TrainingState, list[TrainingState]]:
    """Train a stage; return the last state and those after each step, each batch of validation and each epoch."""
    captured: list[TrainingState] = []

    def keep(capture: Callable[[], TrainingState], **_: bool) -> None:
        captured.append(capture())

    classifier, data = create(stage, replicas)
    stages.run(stage, settings(), classifier, data, state := TrainingState(), progress=Progress(), save=keep)
    return classifier, state, captured


def stored(state: TrainingState) -> TrainingState:
    """Return a state as it is read from a checkpoint."""
    return TrainingState.from_document(state.document(), state.arrays())


def figures(state: TrainingState) -> list[tuple[float, ...]]:
    """Return the figures of each epoch that do not depend on time."""
    return [(one.loss, one.accuracy, one.val_loss, one.val_accuracy) for one in state.history]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("of_run", "options", "values"),
    [
        (None, {}, {}),
        (None, {}, EVERYTHING),
        (AUGMENTED, {}, {}),
        (None, {}, {"batch_size": 1}),
        (None, {"training_precision": "float16"}, {"clip_norm": 0.05}),
    ],
    ids=["plain", "everything", "augmented", "batch of one", "float16"],
)
def test_two_replicas_train_as_one_device(
    replicas: Replicas, stage: StageName, of_run: Settings | None, options: dict[str, Any], values: dict[str, Any]
) -> None:
    """The figures of the first epochs are those of one device within 1e-5, and the same bits twice.

    Adam's moments are compared as well: its steps hardly depend on a factor of the gradients, and they do.
    """
    _, expected = train(stage, None, of_run, options=options, **values)
    classifier, seen = train(stage, replicas, of_run, options=options, **values)
    again, repeated = train(stage, replicas, of_run, options=options, **values)

    assert len(expected.history) == len(seen.history)
    np.testing.assert_allclose(figures(seen), figures(expected), rtol=1e-5)
    assert figures(seen) == figures(repeated)
    assert same_arrays(classifier.state(), again.state())
    for path, value in expected.start_optimizer.items():
        assert np.linalg.norm(value - seen.start_optimizer[path]) <= 0.01 * np.linalg.norm(value)


def test_xla_under_replicas(replicas: Replicas) -> None:
    """Where XLA is asked for, each replica compiles its own part of the step."""
    (_, expected), (_, seen) = (
        train("feature_extraction", chosen, options={"xla": True}, epochs=1) for chosen in (None, replicas)
    )

    np.testing.assert_allclose(figures(seen), figures(expected), rtol=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_resume_to_the_same_bits(replicas: Replicas, stage: StageName) -> None:
    """From a state in the middle of an epoch or of validation, two replicas end in the bits of an undisturbed run."""
    classifier, state, captured = capture_all(stage, replicas)
    for stopped in (captured[1], captured[9]):
        resumed, ended = train(stage, replicas, state=stored(stopped))

        assert same_arrays(classifier.state(), resumed.state())
        assert figures(state) == figures(ended)


@pytest.mark.parametrize("before", [1, 2])
def test_resume_on_another_number(replicas: Replicas, before: int) -> None:
    """A state of one device resumes on two replicas and the other way round: within rounding of the undisturbed run."""
    first, then = (None, replicas) if before == 1 else (replicas, None)
    classifier, state, captured = capture_all("fine_tuning", first)
    resumed, ended = train("fine_tuning", then, state=stored(captured[1]))

    assert classifier.state().keys() == resumed.state().keys()
    np.testing.assert_allclose(figures(ended), figures(state), rtol=1e-5)


def test_one_replica_runs_out_of_memory(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the gradients of one image are the most that fits, both replicas compute them one by one."""
    _, expected = train("fine_tuning", replicas, batch_size=8)
    compute = ReplicatedStep.gradients

    def of_a_small_device(self: ReplicatedStep, *arguments: Any) -> Any:
        if self._micro_batch != 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return compute(self, *arguments)

    monkeypatch.setattr(ReplicatedStep, "gradients", of_a_small_device)
    classifier, data = create("fine_tuning", replicas)
    state, recorder = TrainingState(), Recorder()
    progress = Progress([recorder])
    stages.run("fine_tuning", settings(batch_size=8), classifier, data, state, progress=progress, save=ignore)
    progress.close()

    halved = [event for event in recorder.events if event.name == "training.micro_batch_halved"]
    assert [2, 1] == [event.facts["micro_batch"] for event in halved]
    np.testing.assert_allclose(figures(state), figures(expected), rtol=1e-5)


def test_validation_that_does_not_fit(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that fit for one image at a time alone are computed one by one on each replica."""
    _, expected = train("feature_extraction", replicas, epochs=1, batch_size=4)
    classifier, data = create("feature_extraction", replicas)
    compute = data.predict_on_replicas

    def of_a_small_device(pieces: list[list[Any]]) -> Any:
        if max(len(piece) for [piece] in pieces) > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return compute(pieces)

    monkeypatch.setitem(data.__dict__, "predict_on_replicas", of_a_small_device)
    state, values = TrainingState(), settings(epochs=1, batch_size=4)
    stages.run("feature_extraction", values, classifier, data, state, progress=Progress(), save=ignore)

    assert 1 == state.predict_batch
    np.testing.assert_allclose(figures(state), figures(expected), rtol=1e-6)


def test_signal_stops_all_after_a_step(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal is agreed with the next step's sums; the state is saved after it, and the run ends with exit code 75."""
    classifier, data = create("feature_extraction", replicas)
    state, saved = TrainingState(), []

    def save(capture: Callable[[], TrainingState], *, now: bool, wait: bool) -> None:
        saved.append((capture().step, now, wait))
        monkeypatch.setattr(signals, "received", lambda: "SIGTERM")

    with pytest.raises(errors.StoppedError, match="SIGTERM"):
        stages.run("feature_extraction", settings(), classifier, data, state, progress=Progress(), save=save)

    assert [(1, False, False), (2, True, True)] == saved
    assert "SIGTERM" == replicas.stop_signal


def test_signal_after_the_sums_of_a_step(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is agreed with the sums of the next step: the other processes do not know of it yet."""
    classifier, data = create("feature_extraction", replicas)
    saved, agreed = [], replicas.agreed

    def agreed_before_the_signal(compute: Callable[[], Any], size: int) -> Any:
        sums = agreed(compute, size)
        if size == 3:  # loss, correct and not finite: it is a training step, and not the self-test
            monkeypatch.setattr(signals, "received", lambda: "SIGTERM")
        return sums

    def save(capture: Callable[[], TrainingState], *, now: bool, wait: bool) -> None:
        saved.append((capture().step, now, wait))

    monkeypatch.setattr(replicas, "agreed", agreed_before_the_signal)
    with pytest.raises(errors.StoppedError, match="SIGTERM"):
        stages.run("feature_extraction", settings(), classifier, data, TrainingState(), progress=Progress(), save=save)

    assert [(1, False, False), (2, True, True)] == saved


def test_replica_that_computes_wrong_results(replicas: Replicas) -> None:
    """The self-test at the start of a stage names the replica, ends with exit code 9, and changes nothing."""
    classifier, data = create("fine_tuning", replicas)
    before = classifier.state()
    _, copy = replicas.strategy.experimental_local_results(classifier.output.kernel.value)
    copy.assign(copy * 1.1)
    state = TrainingState()

    with pytest.raises(errors.InvariantError, match="replica 1 of 2") as raised:
        stages.run("fine_tuning", settings(), classifier, data, state, progress=Progress(), save=ignore)

    assert 9 == raised.value.exit_code
    assert same_arrays(before, classifier.state())
    assert 0 == state.step


def test_wrong_sum_of_gradients(replicas: Replicas, monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test compares the sum over the replicas, too."""
    classifier, data = create("fine_tuning", replicas)
    monkeypatch.setattr(replicas, "all_reduce", lambda vectors: vectors[0].numpy())

    with pytest.raises(errors.InvariantError, match="gradients summed over 2 replicas"):
        stages.run("fine_tuning", settings(), classifier, data, TrainingState(), progress=Progress(), save=ignore)


def test_self_test_leaves_no_trace(replicas: Replicas) -> None:
    """Neither the weights nor the optimizer change."""
    classifier, data = create("fine_tuning", replicas)
    trainer = stages.StageTrainer(settings(), classifier, data, TrainingState(), Progress(), ignore)
    before = trainer.capture()

    trainer.check_replicas()

    after = trainer.capture()
    assert same_arrays(before.weights, after.weights)
    assert same_arrays(before.optimizer, after.optimizer)


@pytest.mark.parametrize("of", ["weights", "optimizer"])
def test_copy_that_drifts(replicas: Replicas, of: str) -> None:
    """A copy of a variable that differs at the end of an epoch ends the run with exit code 9."""
    classifier, data = create("feature_extraction", replicas)
    trainer = stages.StageTrainer(settings(), classifier, data, TrainingState(), Progress(), ignore)
    variable = classifier.output.bias if of == "weights" else trainer.optimizer.variables[-1]
    replica_checks.check_variables(replicas, [variable])
    _, copy = replicas.strategy.experimental_local_results(variable.value)
    copy.assign(copy + 1e-3)

    with pytest.raises(errors.InvariantError, match=r"replicas \[1\]") as raised:
        trainer.train_epoch()

    assert 9 == raised.value.exit_code
