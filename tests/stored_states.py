"""Training states saved to a folder and loaded from it, as one start of a run after the other does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from job import storage
from job.runs.checkpoints import Checkpoints
from job.runtime.timing import Timing
from job.training.state import EpochResult, TrainingState

if TYPE_CHECKING:
    from pathlib import Path

RESULT = EpochResult(
    stage="fine_tuning",
    epoch=3,
    loss=0.1 + 0.2,
    accuracy=0.9,
    val_loss=1 / 3,
    val_accuracy=0.8,
    seconds=1.5,
    images_per_second=10.0,
    input_wait=0.0,
)

IDENTITY = {"settings": "5e77", "data": "da7a"}


def open_checkpoints(
    folder: Path,
    owner: str = "job",
    *,
    takeover: float = 60.0,
    interval: float = 1000.0,
    identity: dict[str, str] = IDENTITY,
) -> Checkpoints:
    """Return checkpoints below a folder."""
    output = storage.open_store(str(folder))
    return Checkpoints(
        output, "c", identity=identity, owner=owner, interval=interval, takeover=takeover, timing=Timing()
    )


def state(step: int) -> TrainingState:
    """Return a state whose arrays tell its step."""
    weights = {"fc1/kernel": np.full((2, 3), step, np.float32), "fc1/bias": np.float32([np.nan, -0.0])}
    optimizer = {"adam/iteration": np.int64(step)}
    moved = TrainingState(stage="fine_tuning", epoch=2, step=step, loss_sum=0.1 + step, history=[RESULT], best=RESULT)
    moved.best_weights = moved.start_weights = {"fc1/kernel": np.zeros((2, 3), np.float32)}
    moved.start_optimizer = {"adam/iteration": np.int64(0)}
    return moved.captured(weights, optimizer)


def save(folder: Path, *steps: int) -> None:
    """Save a state for each of the steps, one after the other."""
    with open_checkpoints(folder) as checkpoints:
        checkpoints.facts = {"threads": 2}
        for step in steps:
            checkpoints.save(lambda step=step: state(step), now=True, wait=False)
            checkpoints.flush()


def load(folder: Path) -> tuple[TrainingState | None, dict[str, object]]:
    """Return what the next start finds."""
    with open_checkpoints(folder) as checkpoints:
        return checkpoints.load(), checkpoints.facts


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index."""
    return json.loads((folder / "c/index.json").read_text())
