"""Reading many objects in parallel: each once, within the memory limit, and an end without waiting for retries."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from job.errors import UnavailableError
from job.storage import ObjectInfo
from job.storage.parallel import HELD_BYTES, HELD_OBJECTS, UNPACKED_BYTES, in_parallel

if TYPE_CHECKING:
    from collections.abc import Iterator

WAIT = 60
"""Seconds that a reader waits unless it is closed."""


def objects(count: int, size: int = 1, *, gzip: bool = False) -> list[ObjectInfo]:
    """Return so many listed objects."""
    return [ObjectInfo(str(number), size, 0, 1, gzip) for number in range(count)]


class Counted(list[ObjectInfo]):
    """Objects, and how many of them were taken to be handed out."""

    taken = 0

    def __iter__(self) -> Iterator[ObjectInfo]:
        for info in super().__iter__():
            self.taken += 1
            yield info


def test_everything_is_read_with_its_position() -> None:
    """Each object is handed out once, and its result comes with its position."""
    assert [(number, str(number)) for number in range(500)] == sorted(
        in_parallel(lambda info, _: info.name, objects(500))
    )


def test_a_slow_consumer_is_not_overrun() -> None:
    """The number of objects read ahead is limited, however slow the consumer is."""
    counted = Counted(objects(500))
    reader = in_parallel(lambda info, _: info.name, counted)

    next(reader)

    assert HELD_OBJECTS + 1 == counted.taken  # the last one waits for the result to be used
    reader.close()


@pytest.mark.parametrize(
    ("size", "gzip", "most"),
    [(HELD_BYTES // 4, False, 4), (2 * HELD_BYTES, False, 1), (1, True, HELD_BYTES // UNPACKED_BYTES)],
)
def test_large_objects_are_held_within_the_bytes_agreed(size: int, gzip: bool, most: int) -> None:
    """Objects in flight stay within the byte budget, packed ones by what they may be; a larger one is read alone."""
    lock = threading.Lock()
    running = peak = 0

    def read(_: ObjectInfo, __: threading.Event) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    assert 12 == len(list(in_parallel(read, objects(12, size, gzip=gzip))))
    assert 1 <= peak <= most


def test_an_error_of_a_reader_is_the_consumers() -> None:
    """An exception in a thread is raised where the results are taken, and the threads end."""

    def read(info: ObjectInfo, _: threading.Event) -> None:
        if info.name == "7":
            raise UnavailableError("no 7", remedy="")

    with pytest.raises(UnavailableError, match="no 7"):
        list(in_parallel(read, objects(100)))

    assert "storage" not in [thread.name for thread in threading.enumerate()]


def test_readers_that_wait_are_told_to_end() -> None:
    """Closing sets the event that readers wait on, so that they do not finish their retries."""
    reader = in_parallel(lambda info, closed: info.name == "0" or closed.wait(WAIT), objects(20))
    assert (0, True) == next(reader)

    started = time.monotonic()
    reader.close()

    assert time.monotonic() - started < WAIT
    assert "storage" not in [thread.name for thread in threading.enumerate()]


def test_objects_of_different_sizes_are_held_within_the_bytes_agreed() -> None:
    """What a finished object took is free again, and not what the next one takes."""
    small, large = objects(4), objects(4, HELD_BYTES // 2)
    counted, released = Counted([*small, *large]), threading.Event()

    def read(info: ObjectInfo, _: threading.Event) -> int:
        if info.size > 1:
            released.wait(WAIT)
        return info.size

    results = in_parallel(read, counted)
    first = [next(results)[1] for _ in small]
    taken = counted.taken
    released.set()

    assert ([1] * 4, len(small) + 2) == (first, taken)  # the second large one waits for the results to be used
    assert [HELD_BYTES // 2] * 4 == [size for _, size in results]
