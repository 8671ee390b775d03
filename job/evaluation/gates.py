"""The quality gate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The outcome of the quality gate."""

    passed: bool
    accuracy: float
    """Of the published model on the validation images."""
    min_accuracy: float

    @classmethod
    def of(cls, accuracy: float, min_accuracy: float) -> Gate:
        """Return the outcome for an accuracy and the minimum that passes."""
        return cls(passed=accuracy >= min_accuracy, accuracy=accuracy, min_accuracy=min_accuracy)
