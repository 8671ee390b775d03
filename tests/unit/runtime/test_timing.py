"""The seconds of each part of a run."""

from __future__ import annotations

import time

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
