"""The state of training is captured whole or not at all, whichever thread asks and whenever it does."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from classifiers import new_classifier

from job.config.settings import ModelSettings, StageSettings
from job.observability.progress import Event, Listener, Progress
from job.training import stages
from job.training.examples import create_examples
from job.training.state import TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.model.classifier import Classifier

ROWS = np.arange(8)
LABELS = (ROWS % 2).astype(np.int32)


class Asker(Listener):
    """Asks for the state from another thread: at an event, or after the arithmetic of the first step.

    Attributes:
        capture: how it asks.
        waits: whether the answer had to wait.
        answers: what it got, once it has.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked = False
        self.capture: Callable[[], TrainingState] = TrainingState
        self.waits = False
        self.answers: list[TrainingState] = []

    def on_event(self, event: Event) -> None:
        """Ask."""
        if event.name == self._name:
            self._ask()

    def within(self, step: stages.Step) -> stages.Step:
        """Return a step that moves the weights as `step` does, and then asks."""

        def asking(*arguments: Any) -> Any:
            answer = step(*arguments)
            if not self._asked and self._name == "step":
                self._ask()
            return answer

        return asking

    def _ask(self) -> None:
        self._asked = True
        self.thread = threading.Thread(target=lambda: self.answers.append(self.capture()), daemon=True)
        self.thread.start()
        self.thread.join(0.3)
        self.waits = not self.answers


@pytest.fixture
def classifier() -> Classifier:
    """A classifier that trains its head."""
    classifier = new_classifier(ModelSettings(alpha=0.35, image_size=32, weights="none"), ("a", "b"), seed=7)
    classifier.set_trainable("feature_extraction")
    return classifier


def train(classifier: Classifier, asker: Asker, bias: float = 0.0) -> None:
    """Train for an epoch of two steps, from a bias that is set when the first good state is known."""
    features = np.random.default_rng(0).normal(size=(8, 1280)).astype(np.float32)
    images = SimpleNamespace(pixels=None, manifest=SimpleNamespace(label=LABELS))
    rows_of = {"train": ROWS, "validation": ROWS}
    trainer = stages.StageTrainer(
        StageSettings(epochs=1, learning_rate=0.1, batch_size=4),
        classifier,
        create_examples(classifier, images, features, rows_of, seed=7)["feature_extraction"],
        TrainingState(),
        Progress([asker]),
        lambda *_, **__: None,
    )
    asker.capture = trainer.capture
    trainer._step = asker.within(trainer._step)
    classifier.output.bias.assign([bias])
    trainer.train_epoch()
    asker.thread.join(20)


def test_in_the_middle_of_a_step(classifier: Classifier) -> None:
    """Asked for when a step has moved the weights and is not counted yet, the state comes when it is."""
    asker = Asker("step")
    train(classifier, asker)

    [state] = asker.answers
    assert asker.waits
    assert state.step == state.optimizer["adam/iteration"]
    assert state.step >= 1


def test_after_a_loss_that_is_not_finite(classifier: Classifier) -> None:
    """Weights that are not numbers are not captured: the state comes when training has gone back to the last good."""
    asker = Asker("step")
    train(classifier, asker, bias=np.nan)

    [state] = asker.answers
    assert asker.waits
    assert all(np.isfinite(value).all() for value in state.weights.values())
