"""Training follows the recipe, resumes to the bit, and recovers from what it can."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
from classifiers import LABELS, examples, refolded, small_classifier
from short_stages import EVERYTHING, Breaker, Recorder, ignore, resume_everywhere, run, same_arrays, settings

from job import errors
from job.config.settings import STAGES, Settings, StageName, StageSettings
from job.observability.progress import Event, Listener, Phase, Progress
from job.runtime import signals
from job.training import calls, stages
from job.training.examples import Examples, create_examples
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from job.model.classifier import Classifier
    from job.training.step import Step


eagerly = pytest.mark.usefixtures("functions_run_eagerly")
"""For tests of the loop around the step. Those of the step itself run it as it is compiled."""


@pytest.fixture
def classifier() -> Classifier:
    """A classifier as the job builds it, but for its base model: two convolutions with BatchNormalization."""
    return small_classifier()


def test_order_is_a_permutation_of_its_own_for_each_epoch() -> None:
    """Every image comes once an epoch; seed, stage and epoch each change the order, and nothing else does."""
    orders = {
        (seed, stage, epoch): stages.order(seed, stage, epoch, 50)
        for seed, stage, epoch in itertools.product((1, 2), STAGES, (0, 1))
    }

    assert all(list(range(50)) == sorted(order.tolist()) for order in orders.values())
    assert 8 == len({tuple(order) for order in orders.values()})
    assert np.array_equal(stages.order(1, "fine_tuning", 1, 50), orders[1, "fine_tuning", 1])


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_stage_trains_as_keras_does(classifier: Classifier, stage: StageName) -> None:
    """One epoch ends in the weights and the loss of the same steps taken by Keras's own `fit`."""
    before = classifier.state()
    state = run(classifier, stage, epochs=1)
    ours = classifier.state()

    classifier.load_state(before)
    classifier.set_trainable(stage)
    classifier.model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    order = np.arange(8)[stages.order(7, stage, 0, 8)]
    inputs, truth = examples(classifier, "fine_tuning").inputs(order), LABELS[order]
    fitted = classifier.model.fit(inputs, truth, batch_size=3, shuffle=False, verbose=0).history
    theirs = classifier.state()

    # note: Adam divides by the root of a small number, so that rounding shows; a step is 1e-3
    differences = {path: float(np.abs(ours[path] - theirs[path]).max()) for path in ours}
    assert max(differences.values()) < 3e-4, max(differences, key=differences.get)
    assert [state.history[0].loss] == pytest.approx(fitted["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_everything_trains_as_keras_does(classifier: Classifier, stage: StageName) -> None:
    """With schedule, decay, clipping, smoothing and class weights, too, the steps are those of Keras's `fit`."""
    chosen = settings(
        epochs=1, schedule="cosine", min_learning_rate=2e-4, weight_decay=0.1, clip_norm=0.05, label_smoothing=0.2
    )
    weights, before = np.float32([0.5, 1.5]), classifier.state()
    data, state = dataclasses.replace(examples(classifier, stage), class_weights=weights), TrainingState()
    stages.run(stage, chosen, classifier, data, state, progress=Progress(), save=ignore)
    ours = classifier.state()

    classifier.load_state(before)
    classifier.set_trainable(stage)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 3, alpha=0.2)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.1, global_clipnorm=0.05)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    classifier.model.compile(optimizer, keras.losses.BinaryCrossentropy(label_smoothing=0.2))
    order = np.arange(8)[stages.order(7, stage, 0, 8)]
    inputs, truth = examples(classifier, "fine_tuning").inputs(order), LABELS[order]
    class_weight = dict(enumerate(weights.tolist()))
    classifier.model.fit(inputs, truth, batch_size=3, shuffle=False, verbose=0, class_weight=class_weight)

    theirs = classifier.state()
    differences = {path: float(np.abs(ours[path] - theirs[path]).max()) for path in ours}
    assert max(differences.values()) < 3e-4, max(differences, key=differences.get)
    moved = {path: float(np.abs(ours[path] - before[path]).max()) for path in ours}
    assert max(moved.values()) > 1e-3


@pytest.mark.slow
@eagerly
def test_two_stages_make_one_history(classifier: Classifier) -> None:
    """Epochs are counted from 1 in each stage, and training lowers the loss."""
    state = run(classifier, "feature_extraction")
    run(classifier, "fine_tuning", state, epochs=3)

    assert ["feature_extraction"] * 2 + ["fine_tuning"] * 3 == [result.stage for result in state.history]
    assert [1, 2, 1, 2, 3] == [result.epoch for result in state.history]
    assert state.history[-1].loss < state.history[0].loss


@eagerly
def test_validation_is_a_phase(classifier: Classifier) -> None:
    """Validation tells how far it is, so that a long one is seen and not taken for a stall."""

    class Phases(Listener):
        seen: ClassVar[dict[str, tuple[int, int | None]]] = {}

        def on_advance(self, phase: Phase) -> None:
            self.seen[phase.name] = (phase.done, phase.total)

    data, state, progress = examples(classifier, "feature_extraction"), TrainingState(), Progress([Phases()])
    stages.run("feature_extraction", settings(epochs=1), classifier, data, state, progress=progress, save=ignore)

    assert Phases.seen["prepare"] == (0, None)
    assert {
        "feature_extraction 1/1": (8, 8),
        "feature_extraction 1/1 validation": (4, 4),
    }.items() <= Phases.seen.items()


@eagerly
def test_input_wait_is_measured(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of an epoch's steps that was spent waiting for data is noted: nine seconds of ten."""
    clock = 0.0

    def slow(load: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, float]]:
        nonlocal clock
        for rows in batches:
            clock += 9
            yield load(rows), 9.0

    def computed(_: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        nonlocal clock
        clock += 0 if now else 1

    data, state = examples(classifier, "feature_extraction"), TrainingState()
    monkeypatch.setattr(stages, "prefetch", slow)
    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: clock))
    stages.run("feature_extraction", settings(), classifier, data, state, progress=Progress(), save=computed)

    assert [0.9, 0.9] == [pytest.approx(result.input_wait) for result in state.history]


@pytest.mark.slow
@eagerly
def test_largest_seed(classifier: Classifier) -> None:
    """Every seed that the settings allow can be trained with, in both stages."""
    for stage in STAGES:
        data = Examples(**{**vars(examples(classifier, stage)), "seed": 2**32 - 1})
        state = TrainingState()
        stages.run(stage, settings(epochs=1), classifier, data, state, progress=Progress(), save=ignore)
        assert 1 == len(state.history)


@eagerly
def test_dropout_differs_in_every_step(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step of every epoch of both stages has a dropout seed of its own."""
    compiled, seeds = stages.compile_step, []

    def compile_spy(*arguments: object) -> Step:
        step = compiled(*arguments)
        return lambda inputs, labels, seed: seeds.append(tuple(seed.tolist())) or step(inputs, labels, seed)

    monkeypatch.setattr(stages, "compile_step", compile_spy)
    state = TrainingState()
    for stage in STAGES:
        run(classifier, stage, state)

    assert 2 * 2 * 3 == len(seeds) == len(set(seeds))


@eagerly
def test_last_batch_counts(classifier: Classifier) -> None:
    """The last, smaller batch of an epoch is trained on: eight images in batches of three are three steps."""
    progress, recorder = Progress(), Recorder()
    progress.subscribe(recorder)
    state = TrainingState()
    seen = []
    data = examples(classifier, "feature_extraction")
    spy = Examples(**{**vars(data), "inputs": lambda rows: seen.append(len(rows)) or data.inputs(rows)})
    stages.run("feature_extraction", settings(epochs=1), classifier, spy, state, progress=progress, save=ignore)

    assert [3, 3, 2] == seen[:3]
    expected = ["stage.started", "stage.first_step", "epoch.finished", "stage.finished"]
    assert expected == [event.name for event in recorder.events if event.severity != "debug"]


@eagerly
def test_each_step_is_an_event(classifier: Classifier) -> None:
    """Each completed step is one debug event, with the stage, epoch and step that come next."""
    data, state, recorder = examples(classifier, "feature_extraction"), TrainingState(), Recorder()
    captured = []

    def keep_all(capture: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        if not now:
            captured.append(capture())

    progress = Progress([recorder])
    stages.run("feature_extraction", settings(), classifier, data, state, progress=progress, save=keep_all)

    taken = [event for event in recorder.events if event.name == "step.taken"]
    assert [(epoch, step) for epoch in (0, 1) for step in (1, 2, 3)] == [
        (event.facts["epoch"], event.facts["step"]) for event in taken
    ]
    assert {("debug", "feature_extraction", 3)} == {
        (event.severity, event.facts["stage"], event.facts["steps"]) for event in taken
    }
    assert {(event.facts["epoch"], event.facts["step"]) for event in taken} <= {
        (state.epoch, state.step) for state in captured
    }


@eagerly
def test_a_signal_stops_training(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a signal, training saves the state after the step, waits until it is saved, and ends with exit 75."""
    calls = []

    def save(capture: Callable[[], TrainingState], *, now: bool, wait: bool) -> None:
        calls.append((capture().step, now, wait))
        monkeypatch.setattr(signals, "received", lambda: "SIGTERM")

    data = examples(classifier, "feature_extraction")
    with pytest.raises(errors.StoppedError, match="stopped by SIGTERM; the state is saved") as caught:
        stages.run("feature_extraction", settings(), classifier, data, TrainingState(), progress=Progress(), save=save)

    assert 75 == caught.value.exit_code
    assert [(1, False, False), (2, True, True)] == calls


@eagerly
def test_first_of_equal_epochs_is_the_best(classifier: Classifier) -> None:
    """Of two epochs with the same validation loss, the earlier one is published."""
    state = run(classifier, "feature_extraction", learning_rate=1e-30)

    assert state.history[0].val_loss == state.history[1].val_loss
    assert state.history[0] == state.best


@eagerly
def test_skipped_stage(classifier: Classifier) -> None:
    """A stage of no epochs changes nothing."""
    before = classifier.state()
    state = run(classifier, "feature_extraction", epochs=0)

    assert [] == state.history
    assert all(np.array_equal(before[path], value) for path, value in classifier.state().items())


@eagerly
def test_not_finite(classifier: Classifier) -> None:
    """A loss that stays not a number ends the run at that step, naming stage, epoch, step and learning rate."""
    classifier.output.bias.assign([np.nan])
    with pytest.raises(errors.NotFiniteError, match="the loss is nan in feature_extraction, epoch 1, step 1") as caught:
        run(classifier, "feature_extraction")
    assert "feature_extraction.learning_rate, which is 0.001" in caught.value.remedy
    assert 7 == caught.value.exit_code


@eagerly
@pytest.mark.parametrize(("after", "epoch", "found"), [(6, 1, "the loss"), (3, 0, "the validation loss")])
def test_not_finite_once(classifier: Classifier, after: int, epoch: int, found: str) -> None:
    """After one loss that is not finite, training goes back to the epoch's start with half the learning rate."""
    state, data, recorder = TrainingState(), examples(classifier, "feature_extraction"), Recorder()
    # note: an epoch is three steps and two batches of validation
    broken = Breaker(classifier, after)
    progress = Progress([recorder])
    stages.run("feature_extraction", settings(), classifier, data, state, progress=progress, save=broken)

    assert [1, 2] == [result.epoch for result in state.history]
    assert 0.5 == state.learning_rate_scale
    assert all(np.isfinite(value).all() for value in classifier.state().values())
    events = {event.name: event.facts for event in recorder.events}
    assert f"{found} is nan" in events["training.not_finite"]["message"]
    went_back = events["training.rolled_back"]
    assert (epoch, 0, pytest.approx(5e-4)) == tuple(went_back[name] for name in ("epoch", "step", "learning_rate"))


@eagerly
def test_not_finite_in_validation(classifier: Classifier) -> None:
    """A validation loss that is not finite for the second time ends the run as a training loss does."""

    def always_broken(_: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        assert not now, "no such epoch is ever finished"
        classifier.output.bias.assign([np.nan])

    data, state = examples(classifier, "feature_extraction"), TrainingState()
    with pytest.raises(errors.NotFiniteError, match="the validation loss is nan in feature_extraction, epoch 1, with"):
        stages.run(
            "feature_extraction",
            settings(batch_size=8),  # one step an epoch
            classifier,
            data,
            state,
            progress=Progress(),
            save=always_broken,
        )


def adam_rate(state: TrainingState) -> float:
    """Return the learning rate in a state that was captured."""
    return float(state.optimizer["adam/learning_rate"])


@eagerly
def test_halved_learning_rate_stays_halved(classifier: Classifier) -> None:
    """After going back, a resumed run and the next stage train with half of the learning rate."""
    data, broken = examples(classifier, "feature_extraction"), Breaker(classifier, after=1)
    state = TrainingState()
    classifier.set_trainable("feature_extraction")
    trainer = stages.StageTrainer(settings(), classifier, data, state, Progress(), broken)
    trainer.train_epoch()
    went_back = trainer.capture()
    assert 0.5 == went_back.learning_rate_scale

    state = TrainingState.from_document(went_back.document(), went_back.arrays())
    resumed = stages.StageTrainer(settings(), classifier, data, state, Progress(), ignore).capture()
    state.enter("fine_tuning")
    classifier.set_trainable("fine_tuning")
    next_stage = stages.StageTrainer(settings(learning_rate=0.1), classifier, data, state, Progress(), ignore).capture()

    assert [5e-4, 5e-4, 0.05] == pytest.approx([adam_rate(state) for state in (went_back, resumed, next_stage)])


@pytest.mark.slow
@eagerly
def test_going_back_after_a_resume(classifier: Classifier) -> None:
    """A run that was resumed in the middle of an epoch goes back as far as an undisturbed one: the same bits."""
    tf.config.experimental.enable_op_determinism()
    before, data, results = classifier.state(), examples(classifier, "feature_extraction"), []

    def train(state: TrainingState, broken: Breaker) -> None:
        stages.run("feature_extraction", settings(), classifier, data, state, progress=Progress(), save=broken)
        results.append((classifier.state(), [epoch.loss for epoch in state.history]))

    undisturbed = Breaker(classifier, after=2)
    train(TrainingState(), undisturbed)
    [stopped] = undisturbed.captured
    assert 1 == stopped.step
    classifier.load_state(before)
    resumed = TrainingState.from_document(stopped.document(), stopped.arrays())
    classifier.load_state(resumed.weights)
    train(resumed, Breaker(classifier, after=1))

    (expected, losses), (weights, seen) = results
    assert losses == seen
    assert all(value.tobytes() == expected[path].tobytes() for path, value in weights.items())


@pytest.mark.slow
@eagerly
@pytest.mark.parametrize("stage", STAGES)
def test_resume_ends_in_the_same_bits(classifier: Classifier, stage: StageName) -> None:
    """From a state captured after any step, in validation or at an epoch's end, training ends in the same bits."""
    resume_everywhere(classifier, stage, range(1, 12, 2))


@pytest.mark.slow
@eagerly
@pytest.mark.parametrize("stage", STAGES)
def test_resume_with_everything(classifier: Classifier, stage: StageName) -> None:
    """With every option of a stage, also stopped early, a resumed one ends in the same bits: the state has all."""
    weights = np.float32([0.5, 1.5])
    resume_everywhere(classifier, stage, [0, 5, 8, 11], class_weights=weights, **EVERYTHING)


def stop_early(
    classifier: Classifier, stage: StageName, state: TrainingState, **values: Any
) -> tuple[TrainingState, list[Event], list[TrainingState]]:
    """Run a stage whose first epoch is its best one; return the events, and the states at the epochs' ends."""
    data, recorder, ends = examples(classifier, stage), Recorder(), []

    def spoil(capture: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        if now:
            ends.append(capture())
        elif state.step == 3:
            classifier.output.bias.assign([[0.0, 3.0, 4.0, 5.0, 6.0][state.epoch]])

    progress = Progress([recorder])
    chosen = settings(**{"epochs": 5, "learning_rate": 1e-6, **values})
    stages.run(stage, chosen, classifier, data, state, progress=progress, save=spoil)
    return state, recorder.events, ends


@pytest.mark.slow
@eagerly
@pytest.mark.parametrize("stage", STAGES)
def test_early_stopping(classifier: Classifier, stage: StageName) -> None:
    """A stage with patience ends early, says how many epochs it saved, and keeps the full stage's best up to there."""
    before = classifier.state()
    full, _, full_ends = stop_early(classifier, stage, TrainingState())
    classifier.load_state(before)
    stopped, events, ends = stop_early(classifier, stage, TrainingState(), patience=2)

    assert (5, 3) == (len(full.history), len(stopped.history))
    [facts] = [event.facts for event in events if event.name == "stage.stopped_early"]
    assert {"stage": stage, "epochs": 3, "epochs_saved": 2} == facts
    assert (1, 1) == (full.best.epoch, stopped.best.epoch)
    assert same_arrays(full_ends[2].best_weights, stopped.best_weights)
    assert same_arrays(full_ends[2].weights, ends[2].weights)
    assert same_arrays(full_ends[2].weights, classifier.state())


@pytest.mark.slow
@eagerly
@pytest.mark.parametrize("values", [{"patience": 2}, {}])
def test_restore(classifier: Classifier, values: dict[str, int]) -> None:
    """A stage with `restore` ends with its best weights, in the last state that it saves too, stopped early or not."""
    state, _, ends = stop_early(classifier, "feature_extraction", TrainingState(), restore=True, **values)

    assert same_arrays(ends[0].weights, classifier.state())
    assert same_arrays(ends[0].weights, ends[-1].weights)
    assert not same_arrays(ends[1].weights, ends[-1].weights)
    assert same_arrays(classifier.head_state(), ends[-1].feature_extraction_head)
    assert same_arrays(ends[0].weights, ends[1].stage_best_weights)
    assert {} == state.stage_best_weights == ends[-1].stage_best_weights


@pytest.mark.slow
@eagerly
def test_each_stage_restores_its_own_best(classifier: Classifier) -> None:
    """Stage 2 ends with its own best epoch, also where an epoch of stage 1 was better; `best` keeps the better one."""
    state = run(classifier, "feature_extraction", epochs=1)
    state.best = dataclasses.replace(state.best, val_loss=0.0)
    best, _, ends = stop_early(classifier, "fine_tuning", state, restore=True, patience=1)

    assert "feature_extraction" == best.best.stage
    assert same_arrays(ends[0].weights, classifier.state())


@eagerly
def test_killed_at_the_stop(classifier: Classifier) -> None:
    """A run that was killed right after an early stop does not train that stage again."""
    state, _, ends = stop_early(classifier, "feature_extraction", TrainingState(), restore=True, patience=1)
    expected = classifier.state()
    stopped = TrainingState.from_document(ends[-1].document(), ends[-1].arrays())
    classifier.load_state(stopped.weights)
    resumed, events, _ = stop_early(classifier, "feature_extraction", stopped, restore=True, patience=1)

    assert ["stage.skipped"] == [event.name for event in events]
    assert state.history == resumed.history
    assert same_arrays(expected, classifier.state())


@pytest.mark.slow
@eagerly
def test_learning_rate_of_each_epoch(classifier: Classifier) -> None:
    """The history has the rate of each epoch's last step; after a rollback the whole schedule is halved."""
    chosen = {"schedule": "linear", "min_learning_rate": 4e-4}
    plain = run(classifier, "feature_extraction", **chosen)
    halved = run(classifier, "feature_extraction", TrainingState(learning_rate_scale=0.5), **chosen)
    constant = run(classifier, "feature_extraction")

    expected = [1e-3 - 2 / 6 * 6e-4, 1e-3 - 5 / 6 * 6e-4]
    assert expected == pytest.approx([result.learning_rate for result in plain.history])
    assert [rate / 2 for rate in expected] == pytest.approx([result.learning_rate for result in halved.history])
    assert [1e-3, 1e-3] == [result.learning_rate for result in constant.history]


@eagerly
def test_scheduled_rate_is_the_optimizer_s(classifier: Classifier) -> None:
    """Each step is taken with the rate of the schedule: the states that were captured after it have it."""
    captured: list[TrainingState] = []
    chosen = settings(epochs=1, warmup_epochs=1)
    stages.run(
        "feature_extraction",
        chosen,
        classifier,
        examples(classifier, "feature_extraction"),
        TrainingState(),
        progress=Progress(),
        save=lambda capture, **_: captured.append(capture()),
    )

    assert [2.5e-4, 5e-4, 7.5e-4] == pytest.approx([adam_rate(state) for state in captured[:3]])


@eagerly
def test_validation_loss_is_weighted_and_not_smoothed(classifier: Classifier) -> None:
    """`val_loss` has the weights of the training loss, divided by the number of images, and no label smoothing."""
    weights = np.float32([0.25, 1.75])
    data = dataclasses.replace(examples(classifier, "feature_extraction"), class_weights=weights)
    state, chosen = TrainingState(), settings(epochs=1, label_smoothing=0.5)
    stages.run("feature_extraction", chosen, classifier, data, state, progress=Progress(), save=ignore)

    labels = LABELS[data.validation]
    losses = classifier.losses(data.logits(data.inputs(data.validation)), labels).numpy() * weights[labels]
    assert pytest.approx(float(losses.sum() / 4), rel=1e-5) == state.history[0].val_loss


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_augmented_stage_resumes_in_the_same_bits(classifier: Classifier, stage: StageName) -> None:
    """With augmentation, too, training ends in the same bits: the numbers of an image depend on no earlier step."""
    changes = {"flip": "both", "rotation": 30, "contrast": 0.3, "mixup": 0.4}
    of_run = Settings.model_validate({"augmentation": changes, "feature_extraction": {"views": 0}})

    resume_everywhere(classifier, stage, (1, 6), of_run=of_run)


def test_figures_of_a_resumed_epoch(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed epoch's progress begins with the images that were trained on before; its speed is this start's own."""
    captured: list[TrainingState] = []
    data, done, seconds = examples(classifier, "feature_extraction"), [], [0.0]
    stages.run(
        "feature_extraction",
        settings(epochs=1),
        classifier,
        data,
        TrainingState(),
        progress=Progress(),
        save=lambda capture, **_: captured.append(capture()),
    )
    stopped = captured[1]
    assert 2 == stopped.step

    def load(rows: np.ndarray) -> np.ndarray:
        seconds[0] += 1.0  # a batch takes a second to load, and nothing else takes any time
        return data.inputs(rows)

    class Trained(Listener):
        def on_advance(self, phase: Phase) -> None:
            if phase.name == "feature_extraction 1/1":
                done.append(phase.done)

    monkeypatch.setattr(stages, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    state = TrainingState.from_document(stopped.document(), stopped.arrays())
    stages.run(
        "feature_extraction",
        settings(epochs=1),
        classifier,
        dataclasses.replace(data, inputs=load),
        state,
        progress=Progress([Trained()]),
        save=ignore,
    )

    assert [6, 8, 8] == done
    assert 2.0 == state.history[0].images_per_second


def test_out_of_memory(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that does not fit is halved until it does, and that is noted; if one image does not fit, exit 8."""
    compiled, fits = stages.compile_step, 1

    def compile_for_a_small_device(*arguments: object) -> Step:
        size = arguments[3] if len(arguments) > 3 and arguments[3] else 8
        step = compiled(*arguments)

        def run_out_of_memory(*inputs: object) -> object:
            if size > fits:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return step(*inputs)

        return run_out_of_memory

    monkeypatch.setattr(stages, "compile_step", compile_for_a_small_device)
    state = run(classifier, "feature_extraction", epochs=1, batch_size=8)
    assert (1, 1) == (state.micro_batch, len(state.history))
    fits = 0
    with pytest.raises(errors.DeviceMemoryError, match="one image at a time does not fit") as caught:
        run(classifier, "feature_extraction", batch_size=8)
    assert 8 == caught.value.exit_code


def test_validation_takes_no_larger_batches_than_training(classifier: Classifier) -> None:
    """After a batch did not fit, validation does not try a whole one again."""
    data, sizes = examples(classifier, "feature_extraction"), []
    spy = dataclasses.replace(data, inputs=lambda rows: sizes.append(len(rows)) or data.inputs(rows))
    state, progress = TrainingState(micro_batch=2), Progress()
    stages.run(
        "feature_extraction",
        settings(epochs=1, batch_size=8),
        classifier,
        spy,
        state,
        progress=progress,
        save=ignore,
    )

    assert [8, 2, 2] == sizes


def fixed_pace(monkeypatch: pytest.MonkeyPatch, steps: int) -> list[int]:
    """Have every call take so many steps, where it may; return those of each call of several, once taken."""
    taken: list[int] = []
    compiled = calls.compile_several

    def compile_spy(*arguments: Any, **options: bool) -> Any:
        take = compiled(*arguments, **options)
        return lambda inputs, labels, *rest: taken.append(len(labels)) or take(inputs, labels, *rest)

    monkeypatch.setattr(calls.Pace, "choose", lambda pace, _: min(steps, pace._limit))
    monkeypatch.setattr(calls, "compile_several", compile_spy)
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_steps_of_a_call_change_no_bit(
    classifier: Classifier, stage: StageName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many steps a call takes, and wherever a run is stopped, it ends in the bits of single steps."""
    tf.config.experimental.enable_op_determinism()
    classifier.dropout = 0.5
    before, data = classifier.state(), examples(classifier, stage)
    chosen = settings(batch_size=3, warmup_epochs=1, schedule="cosine", weight_decay=0.1)

    def train(state: TrainingState, steps: int) -> tuple[list[TrainingState], list[int]]:
        captured: list[TrainingState] = []
        with monkeypatch.context() as patched:
            taken = fixed_pace(patched, steps)
            stages.run(
                stage,
                chosen,
                classifier,
                data,
                state,
                progress=Progress(),
                save=lambda capture, **_: captured.append(capture()),
            )
        return captured, taken

    single, none_taken = train(TrainingState(), 1)
    assert [] == none_taken
    by_position = {(state.epoch, state.step): state for state in single}
    classifier.load_state(before)
    captured, taken = train(TrainingState(), 16)
    assert [2, 2] == taken  # of three steps in each epoch, two have a whole batch
    resumed = TrainingState.from_document(single[0].document(), single[0].arrays())
    assert (0, 1) == (resumed.epoch, resumed.step)
    classifier.load_state(resumed.weights)
    after, taken = train(resumed, 2)
    assert [2] == taken  # and one whole batch is left in the epoch that is resumed
    for state in (*captured, *after):
        expected = by_position[state.epoch, state.step]
        assert same_arrays(expected.weights, state.weights)
        assert same_arrays(expected.optimizer, state.optimizer)
        assert (expected.loss_sum, expected.correct) == (state.loss_sum, state.correct)
    expected, seen, after_resume = (
        [dataclasses.replace(result, seconds=0, images_per_second=0, input_wait=0) for result in states[-1].history]
        for states in (single, captured, after)
    )
    assert expected == seen == after_resume


@eagerly
def test_call_of_several_steps_is_one_advance(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is saved and reported once; the step that is next is that after its last one."""
    fixed_pace(monkeypatch, 3)
    data, state = examples(classifier, "feature_extraction"), TrainingState()
    saved, done = [], []
    advance = Phase.advance
    monkeypatch.setattr(Phase, "advance", lambda phase, n, **facts: done.append((n, facts)) or advance(phase, n))
    stages.run(
        "feature_extraction",
        settings(epochs=1, batch_size=2),
        classifier,
        data,
        state,
        progress=Progress(),
        save=lambda capture, *, now, **_: saved.append((capture().step, now)),
    )

    assert [(3, False), (4, False)] == saved[:2]
    assert [(6, 3), (2, 4)] == [(n, facts["step"]) for n, facts in done[:2]]


@eagerly
@pytest.mark.parametrize("needed", ["float16", "micro-batches", "each step"])
def test_each_step_is_a_call(classifier: Classifier, monkeypatch: pytest.MonkeyPatch, needed: str) -> None:
    """In float16, in micro-batches, and where a listener needs each step, no call takes several."""
    taken = fixed_pace(monkeypatch, 3)
    if needed == "float16":
        classifier = refolded(classifier, training_precision="float16")
    data, state = examples(classifier, "fine_tuning"), TrainingState(stage="fine_tuning")
    if needed == "micro-batches":
        state.micro_batch = 1
    progress, chosen = Progress([Recorder()] if needed == "each step" else []), settings(epochs=1, batch_size=2)
    stages.run("fine_tuning", chosen, classifier, data, state, progress=progress, save=ignore)

    assert [] == taken
    assert 1 == len(state.history)


@eagerly
@pytest.mark.parametrize("steps", [1, 3])
def test_step_that_is_not_finite_is_named(classifier: Classifier, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The first step whose loss is not finite is named, also where later steps were taken in the same call."""
    fixed_pace(monkeypatch, steps)
    data = examples(classifier, "feature_extraction")
    bad = data.train[stages.order(data.seed, "feature_extraction", 0, 8)][3]  # of the second batch
    spoiled = dataclasses.replace(
        data, inputs=lambda rows: np.where((rows == bad)[:, None], np.float32(np.nan), data.inputs(rows))
    )
    state = TrainingState(learning_rate_scale=0.5)
    with pytest.raises(errors.NotFiniteError, match="the loss is nan in feature_extraction, epoch 1, step 2"):
        stages.run(
            "feature_extraction",
            settings(batch_size=2),
            classifier,
            spoiled,
            state,
            progress=Progress(),
            save=ignore,
        )

    assert (0, 0.0, 0) == (state.step, state.loss_sum, state.correct)
    assert all(np.isfinite(value).all() for value in classifier.state().values())


@pytest.mark.slow
@eagerly
def test_call_that_does_not_fit(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training rolls back to the start of the epoch and takes single steps from there: the same bits."""
    tf.config.experimental.enable_op_determinism()
    before, data = classifier.state(), examples(classifier, "feature_extraction")
    expected, chosen = run(classifier, "feature_extraction", batch_size=2), settings(batch_size=2)
    weights = classifier.state()
    classifier.load_state(before)
    recorder, taken = Events(), fixed_pace(monkeypatch, 2)
    compiled = calls.compile_several

    def compile_for_a_small_device(*arguments: Any, **options: bool) -> Any:
        take = compiled(*arguments, **options)

        def fail_the_second_time(*inputs: Any) -> Any:
            results = take(*inputs)
            if len(taken) == 2:
                raise calls.DoesNotFitError
            return results

        return fail_the_second_time

    monkeypatch.setattr(calls, "compile_several", compile_for_a_small_device)
    state = TrainingState()
    stages.run("feature_extraction", chosen, classifier, data, state, progress=Progress([recorder]), save=ignore)

    assert [2, 2] == taken
    [facts] = [event.facts for event in recorder.events if event.name == "training.calls_shortened"]
    assert {"epoch": 0, "step": 0} == facts
    assert same_arrays(weights, classifier.state())
    assert [result.loss for result in expected.history] == [result.loss for result in state.history]
    assert (None, 1.0) == (state.micro_batch, state.learning_rate_scale)


class Events(Recorder):
    """Remembers the events, but not each step."""

    needs_each_step = False


def small_device(data: Examples, *, trains: int, predicts: int) -> Examples:
    """Return examples for a device that runs out of memory with more images: in the backward pass, and in a forward."""

    @tf.custom_gradient
    def allocate_backward(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(logits), lambda gradient: allocate(gradient, trains)

    def allocate(values: tf.Tensor, images: int) -> tf.Tensor:
        length = tf.where(tf.shape(values)[0] > images, tf.constant(2**47, tf.int64), 1)  # note: half a petabyte
        return values * tf.reduce_max(tf.fill([length], 1.0))

    return dataclasses.replace(
        data,
        logits=lambda inputs: allocate(data.logits(inputs), predicts),
        training_logits=lambda inputs, seed: allocate_backward(data.training_logits(inputs, seed)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_out_of_memory_in_the_backward_pass(classifier: Classifier, stage: StageName) -> None:
    """A step that runs out of memory moves nothing, Adam's count of steps included: in parts it is the clean step."""
    tf.config.experimental.enable_op_determinism()
    data, before, results = examples(classifier, stage), classifier.state(), []
    for source, state in (
        (data, TrainingState(micro_batch=2)),
        (small_device(data, trains=2, predicts=8), TrainingState()),
    ):
        classifier.load_state(before)
        captured = []
        stages.run(
            stage,
            settings(epochs=1, batch_size=4),
            classifier,
            source,
            state,
            progress=Progress(),
            save=lambda capture, **_: captured.append(capture()),  # noqa: B023 (called within the loop)
        )
        results.append(captured)

    clean, retried = results
    assert 1 == retried[0].optimizer["adam/iteration"]
    assert 2 == retried[0].micro_batch
    for expected, seen in zip(clean, retried, strict=True):
        assert same_arrays(expected.weights, seen.weights)
        assert same_arrays(expected.optimizer, seen.optimizer)
        assert (expected.loss_sum, expected.correct) == (seen.loss_sum, seen.correct)


@pytest.mark.slow
@eagerly
def test_out_of_memory_in_validation(classifier: Classifier) -> None:
    """Validation that does not fit is done in smaller parts, and the state says so; if one does not fit, exit 8."""
    data, recorder = examples(classifier, "fine_tuning"), Recorder()

    def train(predicts: int) -> TrainingState:
        state = TrainingState()
        source, progress = small_device(data, trains=8, predicts=predicts), Progress([recorder])
        stages.run("fine_tuning", settings(), classifier, source, state, progress=progress, save=ignore)
        return TrainingState.from_document(state.document(), {})

    state = train(predicts=1)
    assert (1, None) == (state.predict_batch, state.micro_batch)
    assert 2 == len(state.history)
    assert [1] == [event.facts["predict_batch"] for event in recorder.events if event.name == "prediction.batch_halved"]
    with pytest.raises(
        errors.DeviceMemoryError, match=r"one image at a time .* in validation and evaluation"
    ) as caught:
        train(predicts=0)
    assert 8 == caught.value.exit_code


@pytest.mark.slow
@eagerly
def test_gradients_that_are_never_finite(classifier: Classifier) -> None:
    """Gradients that overflow without any scaling, too, end as a loss that is not finite does."""
    classifier = refolded(classifier, training_precision="float16")
    data = examples(classifier, "fine_tuning")

    @tf.custom_gradient
    def steep(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(logits), lambda upstream: upstream * np.inf

    def training_logits(pixels: tf.Tensor, dropout_seed: tf.Tensor) -> tf.Tensor:
        return steep(classifier.training_logits(pixels, dropout_seed))

    with pytest.raises(errors.NotFiniteError, match=r"a gradient is not finite at a loss scale of 1\b.*fine_tuning"):
        stages.run(
            "fine_tuning",
            settings(),
            classifier,
            dataclasses.replace(data, training_logits=training_logits),
            TrainingState(stage="fine_tuning"),
            progress=Progress(),
            save=ignore,
        )


def test_wrong_trainable_variables_are_noticed(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that would train BatchNormalization does not begin."""

    def forget_normalization(stage: str) -> None:
        classifier.base_model.trainable = stage == "fine_tuning"

    monkeypatch.setattr(classifier, "set_trainable", forget_normalization)
    with pytest.raises(errors.InvariantError, match=r"fine_tuning must train 9 variables, and the model has 13"):
        run(classifier, "fine_tuning")


class Watched:
    """A lock that reports when a thread has to wait for it."""

    def __init__(self, on_wait: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._on_wait = on_wait

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._on_wait()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Asker(Listener):
    """Asks for the state from another thread: at an event, or after the arithmetic of the first step.

    Attributes:
        capture: how it asks.
        lock: of the state that it asks for.
        waits: whether the answer had to wait.
        answers: what it got, once it has.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked = False
        self.capture: Callable[[], TrainingState] = TrainingState
        self.waits = False
        self.answers: list[TrainingState] = []
        self._is_decided = threading.Event()
        self.lock = Watched(self._wait)

    def on_event(self, event: Event) -> None:
        """Ask."""
        if event.name == self._name:
            self._ask()

    def within(self, step: Step) -> Step:
        """Return a step that moves the weights as `step` does, and then asks."""

        def asking(*arguments: Any) -> Any:
            answer = step(*arguments)
            if not self._asked and self._name == "step":
                self._ask()
            return answer

        return asking

    def _ask(self) -> None:
        self._asked = True
        self.thread = threading.Thread(target=self._capture, daemon=True)
        self.thread.start()
        self._is_decided.wait()

    def _capture(self) -> None:
        self.answers.append(self.capture())
        self._is_decided.set()

    def _wait(self) -> None:
        if threading.current_thread() is self.thread:
            self.waits = True
            self._is_decided.set()


def train_and_ask(classifier: Classifier, asker: Asker, bias: float = 0.0) -> None:
    """Train the head for an epoch of two steps, from a bias that is set when the first good state is known."""
    classifier.set_trainable("feature_extraction")
    features = np.random.default_rng(0).normal(size=(8, classifier.feature_size)).astype(np.float32)
    images = SimpleNamespace(pixels=None, manifest=SimpleNamespace(label=LABELS[:8]))
    rows_of = {"train": np.arange(8), "validation": np.arange(8)}
    trainer = stages.StageTrainer(
        StageSettings(epochs=1, learning_rate=0.1, batch_size=4),
        classifier,
        create_examples(classifier, images, features, rows_of, settings=Settings())["feature_extraction"],
        TrainingState(),
        Progress([asker]),
        ignore,
    )
    trainer._state_lock = asker.lock
    asker.capture = trainer.capture
    trainer._step = asker.within(trainer._step)
    classifier.output.bias.assign([bias])
    trainer.train_epoch()
    asker.thread.join()


@pytest.mark.slow
def test_capture_in_the_middle_of_a_step(classifier: Classifier) -> None:
    """Asked for when a step has moved the weights and is not counted yet, the state comes when it is."""
    asker = Asker("step")
    train_and_ask(classifier, asker)

    [state] = asker.answers
    assert asker.waits
    assert state.step == state.optimizer["adam/iteration"]
    assert state.step >= 1


def test_capture_after_a_loss_that_is_not_finite(classifier: Classifier) -> None:
    """Weights that are not numbers are not captured: the state comes when training has gone back to the last good."""
    asker = Asker("step")
    train_and_ask(classifier, asker, bias=np.nan)

    [state] = asker.answers
    assert asker.waits
    assert all(np.isfinite(value).all() for value in state.weights.values())


@eagerly
def test_head_is_kept_at_the_end_of_stage_1(classifier: Classifier) -> None:
    """It is in the state that is saved after stage 1's last epoch, and in none before."""
    captured = []
    stages.run(
        "feature_extraction",
        settings(),
        classifier,
        examples(classifier, "feature_extraction"),
        TrainingState(),
        progress=Progress(),
        save=lambda capture, **_: captured.append(capture()),
    )

    assert [False] * (len(captured) - 1) + [True] == [bool(state.feature_extraction_head) for state in captured]
    assert same_arrays(classifier.head_state(), captured[-1].feature_extraction_head)
