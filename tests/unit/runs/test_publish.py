"""Publication: how a run ends that passed the quality gate, or failed it."""

from __future__ import annotations

import pytest

from job import errors
from job.evaluation.gates import Gate
from job.runs.publish import Outcome


def test_passed_gate() -> None:
    """A run that passed the gate ends without an error."""
    Outcome(run_uri="/out/runs/1", gate=Gate.of(0.8, 0.75)).check_gate()


def test_failed_gate() -> None:
    """A run that failed the gate ends with exit code 6, naming the setting, its value and where the model is."""
    with pytest.raises(errors.GateError, match=r"gate.min_accuracy is 0.75.* published under /out/runs/1") as caught:
        Outcome(run_uri="/out/runs/1", gate=Gate.of(0.7, 0.75)).check_gate()

    assert 6 == caught.value.exit_code
