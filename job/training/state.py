"""The state of training: one explicit value, from which training goes on to the same bits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from job.config.settings import StageName

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """One row of history.csv. `loss` and `accuracy` are means over the epoch's steps, taken while the weights moved."""

    stage: StageName
    epoch: int
    """Counted from 1, on through both stages."""
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    """Validation counted."""
    images_per_second: float
    """Training images a second, validation not counted."""
    input_wait: float
    """The share of the training time spent waiting for data, 0 to 1."""


@dataclass(kw_only=True)
class TrainingState:
    """Where training stands, and the values of all variables there.

    While training runs, Keras holds the variables: `weights` and `optimizer` are empty then, but in a copy made by
    `captured`.
    """

    stage: StageName = "feature_extraction"
    epoch: int = 0
    """The epoch of the stage that is under way or comes next, from 0; as many as the stage has once it is done."""
    step: int = 0
    """The step of that epoch that comes next, from 0."""
    loss_sum: float = 0.0
    """Over the images of that epoch so far."""
    correct: int = 0
    """Of the images of that epoch so far."""
    learning_rate_scale: float = 1.0
    """Halved after a loss that was not finite."""
    micro_batch: int | None = None
    """Images whose gradients are computed at once; None: those of a whole batch. Halved where they do not fit into the
    device's memory, as are the following two."""
    predict_batch: int | None = None
    """Images scored at once in validation and evaluation; None: as many as each of them asks for."""
    feature_batch: int | None = None
    """Images whose features are computed at once; None: those of a whole range. The last bits depend on it."""
    history: list[EpochResult] = field(default_factory=list)
    best: EpochResult | None = None
    """The epoch with the lowest validation loss so far, over both stages."""
    best_weights: Arrays = field(default_factory=dict)
    weights: Arrays = field(default_factory=dict)
    """Of the model: the variable's path -> its value."""
    optimizer: Arrays = field(default_factory=dict)
    """Likewise, of the stage's optimizer."""
    start_weights: Arrays = field(default_factory=dict)
    """Of the model at the start of the epoch under way: there training returns to after a loss that is not finite."""
    start_optimizer: Arrays = field(default_factory=dict)
    """Likewise, of the optimizer."""

    def enter(self, stage: StageName) -> None:
        """Begin a stage, unless it is the one under way."""
        if self.stage != stage:
            self.stage, self.epoch, self.step, self.loss_sum, self.correct = stage, 0, 0, 0.0, 0
            self.optimizer = {}

    def finish_epoch(self, result: EpochResult) -> None:
        """Note what an epoch gave, and go on to the next one."""
        self.history.append(result)
        self.epoch, self.step, self.loss_sum, self.correct = self.epoch + 1, 0, 0.0, 0

    def captured(self, weights: Arrays, optimizer: Arrays) -> TrainingState:
        """Return a copy with the values of the variables. The arrays must not change any more."""
        return dataclasses.replace(self, history=list(self.history), weights=weights, optimizer=optimizer)

    def document(self) -> dict[str, Any]:
        """Return all but the arrays, as plain JSON; floats come back bit for bit."""
        names = (
            *("stage", "epoch", "step", "loss_sum", "correct", "learning_rate_scale"),
            *("micro_batch", "predict_batch", "feature_batch"),
        )
        best = dataclasses.asdict(self.best) if self.best else None
        history = [dataclasses.asdict(result) for result in self.history]
        return {**{name: getattr(self, name) for name in names}, "best": best, "history": history}

    @classmethod
    def restored(cls, document: dict[str, Any], arrays: dict[str, Arrays]) -> TrainingState:
        """Return the state of a document and its arrays: the reverse of `document` and `arrays`."""
        history = [EpochResult(**result) for result in document["history"]]
        best = EpochResult(**document["best"]) if document["best"] else None
        return cls(**{**document, **arrays, "history": history, "best": best})

    def arrays(self) -> dict[str, Arrays]:
        """Return the groups of arrays, which are saved apart: those that did not change need not be saved again."""
        groups = {"weights": self.weights, "optimizer": self.optimizer, "best_weights": self.best_weights}
        if self.step:  # else the state is itself that at the start of its epoch
            groups |= {"start_weights": self.start_weights, "start_optimizer": self.start_optimizer}
        return groups
