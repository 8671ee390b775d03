"""Which Pod decided how its Job ended."""

from __future__ import annotations

from typing import Any

import pytest
from pods import ended, of_worker

from job.watch.ends import Ends

LIMIT = {"type": "Failed", "status": "True", "reason": "MaxFailedIndexesExceeded"}


def by_rule(pod: str, code: int) -> dict[str, Any]:
    """Return the condition of a Job that a Pod failed by a rule of the podFailurePolicy."""
    message = f"Container finetune for pod ml/{pod} failed with exit code {code} matching FailJob rule at index 2"
    return {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": message}


def job(failed: int) -> dict[str, Any]:
    """Return a Job that counts this many failed Pods."""
    return {"status": {"failed": failed}}


def added(*codes: int) -> Ends:
    """Return the ends of workers 0, 1, …, each a second after the next one."""
    ends = Ends()
    for index, code in enumerate(codes):
        ends.add(of_worker(index, ended(code, f"2026-01-01T00:00:{59 - index}Z")), code)
    return ends


@pytest.mark.parametrize(
    ("codes", "condition", "code"),
    [
        ((75, 3), by_rule("p-1", 3), 3),  # Kubernetes stops worker 0 once worker 1 has failed the Job
        ((75, 20), LIMIT, 20),
        ((143, 20), LIMIT, 143),
        ((75, 75), LIMIT, None),
        ((75, 20), {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}, None),
    ],
)
def test_code_that_decides(codes: tuple[int, ...], condition: dict[str, Any], code: int | None) -> None:
    """It is that of a rule, or of the last Pod that counted; what Kubernetes stopped decides nothing."""
    assert code == added(*codes).deciding_code(condition)


def test_deciding_pod_that_is_gone() -> None:
    """Only where its end is unknown is the Job's record needed; with several workers, one that counted is enough."""
    assert added(75).is_deciding_unknown(job(1), by_rule("p-1", 3))
    assert not added(75, 3).is_deciding_unknown(job(1), by_rule("p-1", 3))
    assert not added(75, 20).is_deciding_unknown(job(2), LIMIT)
    assert added(75, 75).is_deciding_unknown(job(1), LIMIT)
