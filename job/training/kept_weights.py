"""The weights that remain of training: those to publish, and those at the end of each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from job.training import early_stopping

if TYPE_CHECKING:
    from job.config.settings import StageName, StageSettings
    from job.model.classifier import Classifier
    from job.training.state import Arrays, EpochResult, TrainingState


def load_kept_weights(
    keep: Literal["best", "last"], classifier: Classifier, state: TrainingState, settings: StageSettings
) -> EpochResult:
    """Load the weights to publish into `classifier`, and return their epoch.

    Args:
        keep: the setting.
        classifier: with the weights at the end of training.
        state: at the end of training.
        settings: of the last stage with epochs.
    """
    assert state.best is not None, "a run has at least one epoch"
    if keep == "last":
        return early_stopping.ending_epoch(settings, state.results(state.history[-1].stage))
    classifier.load_state(state.best_weights)
    return state.best


def end_weights(classifier: Classifier, state: TrainingState) -> dict[StageName, Arrays]:
    """Return the weights at the end of each stage with epochs, while `classifier` has those of the last one.

    Stage 1 is left out if its head is missing: its checkpoint was saved by an older version.
    """
    last = classifier.state()
    ends: dict[StageName, Arrays] = {state.history[-1].stage: last}
    if state.feature_extraction_head:
        # Stage 1 trains the head alone, so its backbone is the initial one.
        ends.setdefault("feature_extraction", last | classifier.initial_base | state.feature_extraction_head)
    return ends
