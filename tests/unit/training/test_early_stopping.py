"""When a stage ends, and with which epoch: as Keras's EarlyStopping decides it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import TYPE_CHECKING

import keras
import pytest
from stored_states import RESULT

from job.config.settings import StageSettings
from job.training import early_stopping

if TYPE_CHECKING:
    from job.training.state import EpochResult

LOSSES = [
    (5.0, 4.0, 4.0, 4.0, 3.0, 2.0),
    (1.0, 2.0, 3.0, 0.5, 0.6, 0.7, 0.8, 0.9),
    (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7),
    (1.0, 1.0, 1.0, 1.0, 1.0),
    (3.0, 2.0, 1.0),
]


def results(losses: tuple[float, ...]) -> list[EpochResult]:
    """Return finished epochs with these validation losses."""
    return [dataclasses.replace(RESULT, epoch=epoch, val_loss=loss) for epoch, loss in enumerate(losses, 1)]


def stopping_epoch(losses: tuple[float, ...], patience: int, min_delta: float) -> int:
    """Return the epoch after which a stage of ten ends, or the number of losses."""
    settings = StageSettings(epochs=10, learning_rate=1, patience=patience, min_delta=min_delta)
    found = results(losses)
    return next((n for n in range(1, len(found)) if early_stopping.is_over(settings, found[:n])), len(found))


@pytest.mark.parametrize("min_delta", [0.0, 0.125])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("losses", LOSSES)
def test_stops_where_keras_stops(losses: tuple[float, ...], patience: int, min_delta: float) -> None:
    """A stage ends after the epoch in which Keras's callback stops `fit`."""
    callback = keras.callbacks.EarlyStopping("val_loss", min_delta, patience, mode="min")
    model = SimpleNamespace(stop_training=False)
    callback.set_model(model)
    callback.on_train_begin()
    expected = len(losses)
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            expected = epoch + 1
            break

    assert expected == stopping_epoch(losses, patience, min_delta)


def test_never_by_default() -> None:
    """Without patience only the last epoch ends a stage; a stage without epochs is over before it begins."""
    settings = StageSettings(epochs=5, learning_rate=1)

    assert [False, False, True] == [early_stopping.is_over(settings, results((1.0, 9.0) * n)) for n in (1, 2, 3)]
    assert early_stopping.is_over(settings.model_copy(update={"epochs": 0}), [])


def test_best_is_the_first_of_the_lowest() -> None:
    """The best epoch has the lowest loss, however small the improvement; of equal ones it is the first."""
    assert 2 == early_stopping.best(results((1.0, 0.9999, 0.9999))).epoch


@pytest.mark.parametrize(("restore", "epoch"), [(False, 3), (True, 2)])
def test_ending_epoch(restore: bool, epoch: int) -> None:
    """A stage ends with its best epoch where it restores it, else with its last one."""
    settings = StageSettings(epochs=3, learning_rate=1, restore=restore)

    assert epoch == early_stopping.ending_epoch(settings, results((3.0, 1.0, 2.0))).epoch
