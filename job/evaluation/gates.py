"""The quality gate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The quality gate's outcome."""

    passed: bool
    accuracy: float
    """Of the kept model, on the validation images."""
    min_accuracy: float

    @classmethod
    def of(cls, accuracy: float, min_accuracy: float) -> Gate:
        """Compare an accuracy with the lowest that passes."""
        return cls(passed=accuracy >= min_accuracy, accuracy=accuracy, min_accuracy=min_accuracy)
