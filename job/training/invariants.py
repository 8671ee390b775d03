"""What must hold in every run, checked while it runs.

Two faults of fine-tuning change the model in silence: BatchNormalization that adapts to the new data although it was
to stay in inference mode, and a changed ``trainable`` flag that a compiled step never sees. Both are looked for here
in the variables themselves, and not in the flags.
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

    Create it when the stage's trainable flags are set and before its first step.

    Raises:
        errors.InvariantError: other variables are trainable than the stage trains.
    """

    def __init__(self, classifier: Classifier, stage: StageName) -> None:
        self._classifier = classifier
        self._stage = stage
        normalization = _paths(v for layer in classifier.normalizations() for v in layer.variables)
        head = _paths(classifier.head_variables())
        everything = _paths(classifier.model.variables)
        expected = head if stage == "feature_extraction" else everything - normalization
        trainable = _paths(classifier.model.trainable_variables)
        if trainable != expected:
            raise errors.InvariantError(
                f"{stage} must train {len(expected)} variables, and the model has {len(trainable)} trainable ones; "
                f"first difference: {min(trainable ^ expected)}",
                remedy=errors.REPORT,
            )
        self._normalization = normalization
        self._frozen = everything - expected
        self._trained_backbone = expected - head
        self._before = classifier.state()

    def check(self, *, whole: bool) -> None:
        """Look at the variables after the stage.

        Args:
            whole: the whole stage was run since. What is left of a resumed one may be too little to move anything.

        Raises:
            errors.InvariantError: a frozen variable changed, or no variable of a pretrained base model did where it is
                trained. Random weights under frozen BatchNormalization give gradients too small to move anything.
        """
        after = self._classifier.state()
        changed = {path for path, value in after.items() if value.tobytes() != self._before[path].tobytes()}
        if broken := changed & self._frozen:
            path = min(broken)
            what = "a BatchNormalization" if path in self._normalization else "a frozen"
            difference = float(np.max(np.abs(after[path] - self._before[path])))
            raise errors.InvariantError(
                f"{what} variable changed in {self._stage}: expected {path} bit-equal before and after, "
                f"and it moved by up to {difference:g} ({len(broken)} such variables)",
                remedy=errors.REPORT,
            )
        if whole and self._classifier.pretrained and self._trained_backbone and not changed & self._trained_backbone:
            raise errors.InvariantError(
                f"{self._stage} must train the base model, and none of its {len(self._trained_backbone)} "
                "trainable variables moved",
                remedy=errors.REPORT,
            )


def _paths(variables: Iterable[keras.Variable]) -> set[str]:
    return {variable.path for variable in variables}
