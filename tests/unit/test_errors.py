"""How a run can end: a reason, an exit code and an action of the Job for each error."""

from __future__ import annotations

import pytest

from job import errors

CONTRACT = {
    "Unexpected": (1, "Count"),
    "Settings": (2, "FailJob"),
    "Usage": (2, "FailJob"),
    "Data": (3, "FailJob"),
    "Device": (4, "Count"),
    "Access": (5, "FailJob"),
    "Gate": (6, "FailJob"),
    "NotFinite": (7, "FailJob"),
    "DeviceMemory": (8, "FailJob"),
    "Invariant": (9, "FailJob"),
    "Unavailable": (20, "Count"),
    "Stall": (20, "Count"),
    "PeerLost": (20, "Count"),
    "Stopped": (75, "Ignore"),
}
"""Scripts and alerts rely on these: they never change."""


def test_contract() -> None:
    """Every class has a reason of its own, with the exit code and the action of the Job that are documented."""
    found = [(error.reason, (error.exit_code, error.job_action)) for error in errors.all_errors()]

    assert sorted(CONTRACT.items()) == sorted(found)


def test_exit_codes() -> None:
    """The table has success and each exit code once, in ascending order, with the meaning that its classes share."""
    codes = errors.exit_codes()

    assert [0, *sorted({code for code, _ in CONTRACT.values()})] == list(codes)
    assert "Complete" == codes[0][1]
    for error in errors.all_errors():
        assert (error.meaning, error.job_action) == codes[error.exit_code]


@pytest.mark.parametrize("error", errors.all_errors())
def test_subclasses_come_after_their_base(error: type[errors.FinetuneError]) -> None:
    """A class is listed after its base, so that the first one that matches a code gives its meaning."""
    classes: list[type] = [Exception, *errors.all_errors()]

    assert classes.index(error.__bases__[0]) < classes.index(error)


def test_facts() -> None:
    """The log, status.json and the termination message report the reason, the message, the remedy and the code."""
    error = errors.DataError("no images", remedy="add some")

    assert "no images" == str(error)
    assert {"reason": "Data", "message": "no images", "remedy": "add some", "exit_code": 3} == error.facts
