"""The state of training: which of its arrays are saved."""

from __future__ import annotations

import numpy as np
import pytest

from job.training.state import TrainingState

GROUPS = ("weights", "optimizer", "best_weights", "start_weights", "start_optimizer")


@pytest.mark.parametrize(("step", "saved"), [(0, GROUPS[:3]), (1, GROUPS), (2, GROUPS)])
def test_start_of_the_epoch_is_saved_within_it(step: int, saved: tuple[str, ...]) -> None:
    """From the first step on, the start of the epoch is saved with the state: training may have to return to it."""
    arrays = {name: {"variable": np.float32([number])} for number, name in enumerate(GROUPS)}

    state = TrainingState(step=step, **arrays)

    assert {name: arrays[name] for name in saved} == state.arrays()
