"""The seconds of each part of a run, over all of its starts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import pytest

from job.runtime import timing
from job.runtime.timing import Part, Timing


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of the module under test."""
    clock = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_parts_add_up(clock: Clock) -> None:
    """A part that is measured twice has the sum; the total runs from the beginning, measured or not. All are there."""
    measured = Timing()
    parts: list[tuple[Part, float]] = [("list", 1.5), ("ingest", 2.0004), ("list", 0.25)]
    for name, seconds in parts:
        with measured.part(name):
            clock.now += seconds
    clock.now += 1.0

    assert {*get_args(Part), "total"} == set(measured.document())
    assert {"list": 1.75, "ingest": 2.0, "total": 4.75} == nonzero(measured)


def nonzero(measured: Timing) -> dict[str, float]:
    """Return the parts that took time."""
    return {name: seconds for name, seconds in measured.document().items() if seconds}


def test_part_in_progress(clock: Clock) -> None:
    """A part counts while it runs, so that a start that is killed in it is counted; so does one that fails."""
    measured = Timing()

    def fail() -> None:
        with measured.part("export"):
            clock.now += 2.0
            assert {"export": 2.0, "total": 2.0} == nonzero(measured)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {"export": 2.0, "total": 2.0} == nonzero(measured)


def test_earlier_starts(clock: Clock) -> None:
    """The seconds of earlier starts are added; what they do not have counts as zero."""
    measured = Timing()
    measured.earlier = {"ingest": 10.0, "total": 12.0}
    with measured.part("ingest"):
        clock.now += 1.0

    assert {"ingest": 11.0, "total": 13.0} == nonzero(measured)
