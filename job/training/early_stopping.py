"""Early stopping: when a stage ends, and with which of its epochs.

Both follow from the validation losses in the history, which every checkpoint has: nothing else has to be stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import StageSettings
    from job.training.state import EpochResult


def is_over(settings: StageSettings, results: Sequence[EpochResult]) -> bool:
    """Whether a stage has ended, by its last epoch or by its patience.

    Args:
        settings: of the stage.
        results: of its finished epochs.
    """
    if len(results) >= settings.epochs:
        return True
    return bool(settings.patience) and epochs_without_improvement(results, settings.min_delta) >= settings.patience


def epochs_without_improvement(results: Sequence[EpochResult], min_delta: float) -> int:
    """Return the number of epochs since the last improvement, as `keras.callbacks.EarlyStopping` counts them.

    The first epoch is an improvement. A later one is an improvement if its validation loss is below that of the last
    improvement by more than `min_delta`.
    """
    reference, count = float("inf"), 0
    for result in results:
        count += 1
        if result.val_loss + min_delta < reference:
            reference, count = result.val_loss, 0
    return count


def best(results: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch with the lowest validation loss; of equal ones the first. `min_delta` has no part in it."""
    return min(results, key=lambda result: result.val_loss)


def ending_epoch(settings: StageSettings, results: Sequence[EpochResult]) -> EpochResult:
    """Return the epoch whose weights a finished stage ended with: the best one where it restores them, else the last.

    Args:
        settings: of the stage.
        results: of its finished epochs.
    """
    return best(results) if settings.restore else results[-1]
