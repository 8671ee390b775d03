"""The quality gate."""

from __future__ import annotations

import pytest

from job import errors
from job.evaluation.gates import Gate
from job.runs import publish


@pytest.mark.parametrize(
    ("accuracy", "min_accuracy", "passed"),
    [(0.75, 0.75, True), (0.0, 0.0, True), (0.8, 0.75, True), (0.7, 0.75, False)],
)
def test_gate(accuracy: float, min_accuracy: float, passed: bool) -> None:
    """gate.min_accuracy itself passes, as does a higher accuracy; a lower one ends the run with exit 6."""
    gate = Gate.of(accuracy, min_accuracy)
    outcome = publish.Outcome(run_uri="/out/runs/1", gate=gate)

    assert Gate(passed=passed, accuracy=accuracy, min_accuracy=min_accuracy) == gate
    if passed:
        outcome.check_gate()
        return
    with pytest.raises(errors.GateError, match=r"gate.min_accuracy is 0.75") as caught:
        outcome.check_gate()
    assert 6 == caught.value.exit_code
