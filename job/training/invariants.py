"""Invariants of the recipe, checked in every run.

Two fine-tuning bugs change the model silently: BatchNormalization that adapts to the new data although it should stay
in inference mode, and a changed ``trainable`` flag that a compiled step ignores. Both are detected here by comparing
the variables themselves, not the flags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from job import errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    import keras

    from job.config.settings import StageName
    from job.model.classifier import Classifier


class StageInvariants:
    """Compares the classifier's variables before and after a stage.

    Create it after the stage's trainable flags are set and before its first step.

    Raises:
        errors.InvariantError: the trainable variables are not those that the stage must train.
    """

    def __init__(self, classifier: Classifier, stage: StageName) -> None:
        self._classifier = classifier
        self._stage = stage
        normalization = _paths(v for layer in classifier.normalizations() for v in layer.variables)
        head = _paths(classifier.head_variables())
        everything = _paths(classifier.model.weights)  # not its `variables`: Dropout has a random state
        frozen = _paths(classifier.frozen_variables())
        expected = head if stage == "feature_extraction" else everything - normalization - frozen
        trainable = _paths(classifier.model.trainable_variables)
        if trainable != expected:
            raise errors.InvariantError(
                f"{stage} must train {len(expected)} variables, and the model has {len(trainable)} trainable ones; "
                f"first difference: {min(trainable ^ expected)}",
                remedy=errors.REPORT_BUG,
            )
        self._normalization = normalization
        self._frozen = everything - expected
        self._trained_backbone = expected - head
        self._before = classifier.state()

    def check(self, *, is_complete: bool) -> None:
        """Check the variables after the stage.

        Args:
            is_complete: the stage ran from its first step. The rest of a resumed stage may be too short for a change.

        Raises:
            errors.InvariantError: a frozen variable changed; or the stage trains a pretrained base model, and none of
                its variables changed. Random base models are exempt: under frozen BatchNormalization their gradients
                are too small to change anything.
        """
        after = self._classifier.state()
        changed = {path for path, value in after.items() if value.tobytes() != self._before[path].tobytes()}
        if broken := changed & self._frozen:
            path = min(broken)
            kind = "a BatchNormalization" if path in self._normalization else "a frozen"
            difference = float(np.max(np.abs(after[path] - self._before[path])))
            raise errors.InvariantError(
                f"{kind} variable changed in {self._stage}: expected {path} bit-equal before and after, "
                f"and it moved by up to {difference:g} ({len(broken)} such variables)",
                remedy=errors.REPORT_BUG,
            )
        if (
            is_complete
            and self._classifier.pretrained
            and self._trained_backbone
            and not changed & self._trained_backbone
        ):
            raise errors.InvariantError(
                f"{self._stage} must train the base model, and none of its {len(self._trained_backbone)} "
                "trainable variables moved",
                remedy=errors.REPORT_BUG,
            )


def _paths(variables: Iterable[keras.Variable]) -> set[str]:
    return {variable.path for variable in variables}
