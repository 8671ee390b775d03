"""The seconds of each part of a run."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from job.runtime import timing
from job.runtime.timing import Timing


def test_times_of_a_part_add_up() -> None:
    """A part that is entered twice counts both times; the total counts everything since the run began."""
    timing = Timing()
    for seconds in (0.02, 0.001):
        with timing.part("list"):
            time.sleep(seconds)

    document = timing.document()

    assert ["list", "total"] == list(document)
    assert 0.021 <= document["list"] <= document["total"]


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is measured twice has the sum; the total runs from the beginning, measured or not."""
    now = 100.0
    monkeypatch.setattr(timing, "time", SimpleNamespace(monotonic=lambda: now))
    measured = Timing()
    for name, seconds in (("list", 1.5), ("ingest", 2.0004), ("list", 0.25)):
        with measured.part(name):
            now += seconds
    now += 1.0

    assert {"list": 1.75, "ingest": 2.0, "total": 4.75} == measured.document()


def test_part_under_way() -> None:
    """A part is counted once it has ended; one that fails is not."""
    measured = Timing()
    with pytest.raises(ZeroDivisionError), measured.part("export"):
        raise ZeroDivisionError

    assert ["total"] == list(measured.document())
