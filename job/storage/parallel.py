"""Reading many objects at once without holding more of them than agreed."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from job.storage.objects import ObjectInfo

THREADS = 16
"""Measured against an emulator: 8 and 32 are slower, and asyncio takes more CPU for each object."""

HELD_OBJECTS = 64
HELD_BYTES = 256 * 1024**2

UNPACKED_BYTES = 64 * 1024**2
"""The most that a gzip-encoded object may unpack to. How much it is, is not known before: so many are counted."""

Result = TypeVar("Result")


def in_parallel(
    read: Callable[[ObjectInfo, threading.Event], Result], objects: Sequence[ObjectInfo]
) -> Generator[tuple[int, Result], None, None]:
    """Call ``read`` for each object on several threads; yield its position and the result, in any order.

    The consumer's own thread hands out the work, so a slow consumer slows the reading. The first exception of
    ``read`` is raised here. However the iterator ends, its threads end too: at once where they wait for work or for
    the event that ``read`` gets, and with their request otherwise.
    """
    todo: SimpleQueue[tuple[int, ObjectInfo] | None] = SimpleQueue()
    done: SimpleQueue[tuple[int, Result] | BaseException] = SimpleQueue()
    closed = threading.Event()

    def work() -> None:
        while (task := todo.get()) is not None and not closed.is_set():
            index, info = task
            try:
                done.put((index, read(info, closed)))
            except BaseException as error:  # noqa: BLE001  # it is raised where the results are taken
                done.put(error)

    # Daemons: a request into a dead network must not keep a process that was told to stop from ending.
    threads = [threading.Thread(target=work, name="storage", daemon=True) for _ in range(min(THREADS, len(objects)))]
    for thread in threads:
        thread.start()
    held = held_bytes = 0
    try:
        for index, info in enumerate(objects):
            while held == HELD_OBJECTS or (held and held_bytes + _bytes(info) > HELD_BYTES):
                finished, result = _take(done)
                held, held_bytes = held - 1, held_bytes - _bytes(objects[finished])
                yield finished, result
            todo.put((index, info))
            held, held_bytes = held + 1, held_bytes + _bytes(info)
        for _ in range(held):
            yield _take(done)
    finally:
        closed.set()
        for _ in threads:
            todo.put(None)
        deadline = time.monotonic() + 2
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _bytes(info: ObjectInfo) -> int:
    return UNPACKED_BYTES if info.gzip else info.size


def _take(done: SimpleQueue[tuple[int, Result] | BaseException]) -> tuple[int, Result]:
    finished = done.get()
    if isinstance(finished, BaseException):
        raise finished
    return finished
