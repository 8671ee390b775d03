"""The training state: one explicit value, from which training resumes bit-identically."""

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
    """One row of history.csv. `loss` and `accuracy` are means over the training steps, while the weights change."""

    stage: StageName
    epoch: int
    """Counted from 1 in each stage."""
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    """Including validation."""
    images_per_second: float
    """Training images per second, excluding validation."""
    input_wait: float
    """Fraction of the training time spent waiting for data, 0 to 1."""
    learning_rate: float | None = None
    """Of the epoch's last step; None in checkpoints of older versions."""


@dataclass(kw_only=True)
class TrainingState:
    """The position of training, and the values of all variables at that position.

    While training runs, Keras holds the variables: `weights` and `optimizer` are empty except in the copies that
    `captured` returns.
    """

    stage: StageName = "feature_extraction"
    epoch: int = 0
    """The current or next epoch of the stage, from 0; the stage's number of epochs once it is finished."""
    step: int = 0
    """The next step of the epoch, from 0."""
    loss_sum: float = 0.0
    """Over the images of the epoch so far."""
    correct: int = 0
    """Correct predictions among the images of the epoch so far."""
    learning_rate_scale: float = 1.0
    """Halved after a non-finite loss."""
    micro_batch: int | None = None
    """Images whose gradients are computed at once; None: a whole batch. Halved if they do not fit into the device's
    memory, as are the following two."""
    predict_batch: int | None = None
    """Limit of images scored at once in validation and evaluation; None: no limit."""
    feature_batch: int | None = None
    """Images whose features are computed at once; None: a whole range. The last bits depend on it."""
    warm_start: str | None = None
    """URI of the published run whose model training started from; later starts keep to it. None: no warm start."""
    history: list[EpochResult] = field(default_factory=list)
    best: EpochResult | None = None
    """The epoch with the lowest validation loss so far, in both stages."""
    best_weights: Arrays = field(default_factory=dict)
    stage_best_weights: Arrays = field(default_factory=dict)
    """Of the model at the stage's own epoch with the lowest validation loss, where the stage will end with them
    (`restore`); empty elsewhere."""
    weights: Arrays = field(default_factory=dict)
    """Of the model: variable path -> value."""
    optimizer: Arrays = field(default_factory=dict)
    """Of the stage's optimizer: variable path -> value."""
    start_weights: Arrays = field(default_factory=dict)
    """Of the model at the start of the epoch, to which training rolls back after a non-finite loss."""
    start_optimizer: Arrays = field(default_factory=dict)
    """Of the optimizer at the start of the epoch."""
    feature_extraction_head: Arrays = field(default_factory=dict)
    """Of the model's head at the end of stage 1. Empty before, and in checkpoints of older versions."""
    label_errors: Arrays = field(default_factory=dict)
    """Suspected among the training images after stage 1 (`label_errors.find`); empty if none was looked for."""

    def epoch_total(self, result: EpochResult) -> int:
        """Return the number of a finished epoch, counted from 1 across both stages."""
        keys = [(other.stage, other.epoch) for other in self.history]
        return keys.index((result.stage, result.epoch)) + 1

    def results(self, stage: StageName) -> list[EpochResult]:
        """Return the finished epochs of a stage."""
        return [result for result in self.history if result.stage == stage]

    def enter(self, stage: StageName) -> None:
        """Start a stage unless it is the current one."""
        if self.stage != stage:
            self.stage, self.epoch, self.step, self.loss_sum, self.correct = stage, 0, 0, 0.0, 0
            self.optimizer, self.stage_best_weights = {}, {}

    def finish_epoch(self, result: EpochResult) -> None:
        """Append an epoch's result to the history, and advance to the next epoch."""
        self.history.append(result)
        self.epoch, self.step, self.loss_sum, self.correct = self.epoch + 1, 0, 0.0, 0

    def captured(self, weights: Arrays, optimizer: Arrays) -> TrainingState:
        """Return a copy with the values of the variables. The arrays must not change afterwards."""
        return dataclasses.replace(self, history=list(self.history), weights=weights, optimizer=optimizer)

    def document(self) -> dict[str, Any]:
        """Return everything except the arrays, as plain JSON; floats round-trip exactly."""
        names = (
            *("stage", "epoch", "step", "loss_sum", "correct", "learning_rate_scale"),
            *("micro_batch", "predict_batch", "feature_batch", "warm_start"),
        )
        best = dataclasses.asdict(self.best) if self.best else None
        history = [dataclasses.asdict(result) for result in self.history]
        return {**{name: getattr(self, name) for name in names}, "best": best, "history": history}

    @classmethod
    def from_document(cls, document: dict[str, Any], arrays: dict[str, Arrays]) -> TrainingState:
        """Return the state of a document and its arrays: the inverse of `document` and `arrays`."""
        history = [EpochResult(**result) for result in document["history"]]
        best = EpochResult(**document["best"]) if document["best"] else None
        return cls(**{**document, **arrays, "history": history, "best": best})

    def arrays(self) -> dict[str, Arrays]:
        """Return the groups of arrays. They are stored separately, so that unchanged groups are not saved again."""
        groups = {"weights": self.weights, "optimizer": self.optimizer, "best_weights": self.best_weights}
        if self.step:  # otherwise `weights` and `optimizer` are already those at the start of the epoch
            groups |= {"start_weights": self.start_weights, "start_optimizer": self.start_optimizer}
        if self.stage_best_weights:
            groups["stage_best_weights"] = self.stage_best_weights
        if self.feature_extraction_head:
            groups["feature_extraction_head"] = self.feature_extraction_head
        if self.label_errors:
            groups["label_errors"] = self.label_errors
        return groups
