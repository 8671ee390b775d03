"""The seconds of each part of a run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from job.runtime import timing
from job.runtime.timing import Timing


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
