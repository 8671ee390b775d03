"""The part that limits the pass over the data is named by the main thread's seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from job.data.pass_time import PARTS, PassTime
from job.observability.console import LIMITS

if TYPE_CHECKING:
    from job.data.pass_time import Part


class Clock:
    """Monotonic seconds, advanced by hand."""

    now = 100.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


@pytest.mark.parametrize("slow", PARTS)
def test_the_part_with_the_most_seconds_is_named(slow: Part) -> None:
    """What the main thread spends most of its time on limits the pass."""
    clock = Clock()
    time = PassTime(clock)
    for part in PARTS:
        with time.part(part):
            clock.now += 5 if part == slow else 1
    time.add_worker(decoding=1, cache=0)

    facts = time.facts(80)

    assert {
        "images": 80,
        "seconds": 8.0,
        "images_per_second": 10.0,
        "limited_by": slow,
        "seconds_by_part": {part: 5.0 if part == slow else 1.0 for part in PARTS},
    } == facts


def test_decoding_threads_that_write_wait_for_the_disk() -> None:
    """Waiting for decoding threads counts as the cache's in the share in which they write to it."""
    time = PassTime(Clock())
    time.add("decoding", 10)
    for _ in range(2):
        time.add_worker(decoding=1, cache=3)

    facts: dict[str, Any] = time.facts(2)

    assert "cache" == facts["limited_by"]
    assert {"store": 0.0, "decoding": 2.5, "cache": 7.5, "features": 0.0} == facts["seconds_by_part"]


def test_seconds_count_when_a_block_fails() -> None:
    """An unreadable image takes time, too."""
    clock = Clock()
    time = PassTime(clock)

    def fail() -> None:
        with time.part("decoding"):
            clock.now += 2
            raise ValueError("corrupt")

    with pytest.raises(ValueError, match="corrupt"):
        fail()

    facts: dict[str, Any] = time.facts(1)
    assert 2.0 == facts["seconds_by_part"]["decoding"]


def test_each_part_has_words() -> None:
    """The console has a phrase for each part."""
    assert set(PARTS) == set(LIMITS)
