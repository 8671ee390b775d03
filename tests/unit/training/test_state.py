"""The state of training: which of its arrays are saved."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from stored_states import RESULT

from job.training.state import TrainingState

GROUPS = (
    *("weights", "optimizer", "best_weights", "start_weights", "start_optimizer"),
    *("feature_extraction_head", "label_errors", "stage_best_weights"),
)
WITHIN_AN_EPOCH = {"start_weights", "start_optimizer"}


@pytest.mark.parametrize(("step", "left_out"), [(0, WITHIN_AN_EPOCH), (1, set()), (2, set())])
def test_start_of_the_epoch_is_saved_within_it(step: int, left_out: set[str]) -> None:
    """From the first step on, the start of the epoch is saved with the state: training may have to return to it."""
    arrays = {name: {"variable": np.float32([number])} for number, name in enumerate(GROUPS)}

    state = TrainingState(step=step, **arrays)

    assert {name: arrays[name] for name in set(GROUPS) - left_out} == state.arrays()


def test_checkpoint_of_an_older_version() -> None:
    """A state without the head of stage 1 loads, and is saved as it was."""
    state = state_within_an_epoch()
    arrays = {name: value for name, value in state.arrays().items() if name != "feature_extraction_head"}

    loaded = TrainingState.from_document(state.document(), arrays)

    assert {} == loaded.feature_extraction_head
    assert set(arrays) == set(loaded.arrays())


ARRAYS = {"kernel": np.float32([[np.nan, -0.0], [1e-45, np.inf]]), "count": np.int64(2**62 + 1)}


def state_within_an_epoch() -> TrainingState:
    """Return a state of which no field has its default."""
    return TrainingState(
        stage="fine_tuning",
        epoch=2,
        step=7,
        loss_sum=0.1 + 0.7,
        correct=11,
        learning_rate_scale=0.5,
        micro_batch=4,
        predict_batch=16,
        feature_batch=8,
        history=[RESULT],
        best=RESULT,
        **{name: {f"{name}/{path}": value for path, value in ARRAYS.items()} for name in GROUPS},
    )


def test_round_trip() -> None:
    """Through JSON and its arrays a state comes back bit for bit, with every field."""
    state = state_within_an_epoch()

    loaded = TrainingState.from_document(json.loads(json.dumps(state.document())), state.arrays())

    assert state.document() == loaded.document()
    assert set(GROUPS) == set(state.arrays())
    for group in GROUPS:
        assert {path: value.tobytes() for path, value in getattr(state, group).items()} == {
            path: value.tobytes() for path, value in getattr(loaded, group).items()
        }


def test_document_and_arrays_leave_no_field_out() -> None:
    """Every field is in the document or is a group of arrays: a new one cannot be forgotten."""
    state = state_within_an_epoch()

    assert {field.name for field in dataclasses.fields(TrainingState)} == {*state.document(), *state.arrays()}


def test_state_at_the_start_of_an_epoch() -> None:
    """Between two epochs the arrays of the epoch's start are not stored: they are the weights and the optimizer."""
    state = dataclasses.replace(state_within_an_epoch(), step=0)

    assert set(GROUPS) - WITHIN_AN_EPOCH == set(state.arrays())


def test_state_without_label_errors() -> None:
    """Before they are looked for there is nothing to store; a state of an older version has none."""
    state = dataclasses.replace(state_within_an_epoch(), label_errors={})

    assert "label_errors" not in state.arrays()
    assert {} == TrainingState.from_document(state.document(), state.arrays()).label_errors


def test_new_run_has_no_best_epoch() -> None:
    """A state without any result comes back as such."""
    assert TrainingState() == TrainingState.from_document(TrainingState().document(), TrainingState().arrays())


def test_finish_epoch() -> None:
    """A finished epoch is in the history, and the next one starts at its first step with empty sums."""
    state = state_within_an_epoch()

    state.finish_epoch(RESULT)

    assert [RESULT, RESULT] == state.history
    assert (3, 0, 0.0, 0) == (state.epoch, state.step, state.loss_sum, state.correct)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [("fine_tuning", ("fine_tuning", 2, 7)), ("feature_extraction", ("feature_extraction", 0, 0))],
)
def test_enter(stage: str, expected: tuple[str, int, int]) -> None:
    """Entering the current stage changes nothing; another one starts at its first step, with a new optimizer."""
    state = state_within_an_epoch()

    state.enter(stage)

    assert expected == (state.stage, state.epoch, state.step)
    assert (stage == "fine_tuning") == bool(state.optimizer)


def test_captured_state_stays() -> None:
    """What was captured does not change when training moves on."""
    state = state_within_an_epoch()

    captured = state.captured({"a": np.float32(1)}, {"b": np.float32(2)})
    state.finish_epoch(RESULT)

    assert (7, [RESULT]) == (captured.step, captured.history)
    assert ({"a": 1.0}, {"b": 2.0}) == (captured.weights, captured.optimizer)


def test_epochs_are_also_counted_across_both_stages() -> None:
    """An epoch is found by its stage and its number in it."""
    keys = [("feature_extraction", 1), ("feature_extraction", 2), ("fine_tuning", 1), ("fine_tuning", 2)]
    history = [dataclasses.replace(RESULT, stage=stage, epoch=epoch) for stage, epoch in keys]

    assert [1, 2, 3, 4] == [TrainingState(history=history).epoch_total(result) for result in history]
