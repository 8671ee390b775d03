"""Stages of a few steps, and what the tests of training do with them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from classifiers import examples

from job.config.settings import StageSettings
from job.observability.progress import Event, Listener, Progress
from job.training import stages
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from job.config.settings import Settings, StageName
    from job.model.classifier import Classifier
    from job.training.state import Arrays


EVERYTHING = {
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "min_learning_rate": 1e-5,
    "weight_decay": 0.1,
    "clip_norm": 0.05,
    "label_smoothing": 0.1,
    "epochs": 9,
    "patience": 1,
    "min_delta": 100.0,
    "restore": True,
}
"""Settings of a stage, none of which has its default. No epoch is an improvement: the stage ends after the second."""


class Recorder(Listener):
    """Remembers the events, each step too."""

    needs_each_step = True

    def __init__(self) -> None:
        self.events = []

    def on_event(self, event: Event) -> None:
        """Remember one."""
        self.events.append(event)


def settings(**values: float) -> StageSettings:
    """Return the settings of a short stage."""
    return StageSettings(**{"epochs": 2, "learning_rate": 1e-3, "batch_size": 3, **values})


def run(classifier: Classifier, stage: StageName, state: TrainingState | None = None, **values: float) -> TrainingState:
    """Run one stage."""
    state = state or TrainingState()
    data = examples(classifier, stage)
    stages.run(stage, settings(**values), classifier, data, state, progress=Progress(), save=ignore)
    return state


def captured_states(classifier: Classifier, stage: StageName) -> list[TrainingState]:
    """Run one stage, and return its state after each step, each batch of validation and each epoch."""
    captured: list[TrainingState] = []
    data = examples(classifier, stage)

    def save(capture: Callable[[], TrainingState], **_: bool) -> None:
        captured.append(capture())

    stages.run(stage, settings(), classifier, data, TrainingState(), progress=Progress(), save=save)
    return captured


def ignore(_: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
    """Save nothing."""


class Breaker:
    """Saves nothing; makes the weights of the head NaN once, after so many steps and batches of validation."""

    def __init__(self, classifier: Classifier, after: int) -> None:
        self.captured: list[TrainingState] = []
        self._classifier = classifier
        self._left = after

    def __call__(self, capture: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        """Count a step."""
        self._left -= not now
        if self._left == 0:
            self._left = -1
            self._classifier.output.bias.assign([np.nan])
        elif self._left > 0:
            self.captured.append(capture())


def resume_everywhere(
    classifier: Classifier,
    stage: StageName,
    at: Iterable[int],
    *,
    of_run: Settings | None = None,
    class_weights: Any = None,
    trained: int = 2,
    **values: Any,
) -> None:
    """Assert that training ends in the same bits from each of these states.

    Args:
        classifier: to be trained.
        stage: of the training.
        at: numbers of the states, of those at which training may be stopped.
        of_run: the settings of the examples: augmentation.
        class_weights: of the examples.
        trained: epochs that are trained: fewer than those of the settings where the stage is stopped early.
        values: of the settings.
    """
    chosen = settings(**values)
    tf.config.experimental.enable_op_determinism()
    classifier.dropout = 0.5  # a resumed run must drop the same features
    before, captured = classifier.state(), []

    def keep_all(capture: Callable[[], TrainingState], *, now: bool, **_rest: bool) -> None:
        assert isinstance(now, bool)
        captured.append(capture())

    state, data = TrainingState(), examples(classifier, stage, of_run)
    data = dataclasses.replace(data, class_weights=class_weights)
    stages.run(stage, chosen, classifier, data, state, progress=Progress(), save=keep_all)
    expected = classifier.state()

    assert trained * (3 + 2 + 1) == len(captured)  # three steps, two batches of validation and the end of each epoch
    for stopped in [captured[number] for number in at]:
        classifier.load_state(before)
        resumed = TrainingState.from_document(stopped.document(), stopped.arrays())
        classifier.load_state(resumed.weights)
        stages.run(stage, chosen, classifier, data, resumed, progress=Progress(), save=ignore)

        assert all(value.tobytes() == expected[path].tobytes() for path, value in classifier.state().items())
        figures = ("loss", "val_loss", "learning_rate")
        seen = [[[getattr(result, name) for name in figures] for result in run.history] for run in (state, resumed)]
        assert seen[0] == seen[1]
        assert all(
            state.best_weights[path].tobytes() == value.tobytes() for path, value in resumed.best_weights.items()
        )


def same_arrays(expected: Arrays, seen: Arrays) -> bool:
    """Whether two groups of arrays have the same names and bits."""
    return {path: value.tobytes() for path, value in expected.items()} == {
        path: value.tobytes() for path, value in seen.items()
    }
