"""The quality gate: which accuracy passes."""

from __future__ import annotations

import pytest

from job.evaluation.gates import Gate


@pytest.mark.parametrize(
    ("accuracy", "min_accuracy", "passed"),
    [(0.75, 0.75, True), (0.0, 0.0, True), (0.8, 0.75, True), (0.7, 0.75, False)],
)
def test_gate(accuracy: float, min_accuracy: float, passed: bool) -> None:
    """gate.min_accuracy itself passes, as does a higher accuracy; a lower one does not."""
    assert Gate(passed=passed, accuracy=accuracy, min_accuracy=min_accuracy) == Gate.of(accuracy, min_accuracy)
