"""Reads many objects in parallel with bounded memory."""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from job.storage.objects import ObjectInfo

THREADS = 16
"""Measured against an emulator: 8 and 32 are slower, and asyncio takes more CPU per object."""

CONNECTIONS = 32
"""That a bucket's client keeps open. Requests beyond these would each open a connection, and close it."""

HELD_OBJECTS = 64
HELD_BYTES = 256 * 1024**2

UNPACKED_BYTES = 64 * 1024**2
"""Limit of the decompressed size of a gzip-encoded object; each counts as this, as its size is not known in advance."""

Result = TypeVar("Result")


def in_parallel(
    read: Callable[[ObjectInfo, threading.Event], Result], objects: Sequence[ObjectInfo]
) -> Generator[tuple[int, Result], None, None]:
    """Call ``read`` for each object on several threads; see `in_parallel_by`."""
    return in_parallel_by(lambda _: read, objects)


def in_parallel_by(
    reader_of: Callable[[int], Callable[[ObjectInfo, threading.Event], Result]], objects: Sequence[ObjectInfo]
) -> Generator[tuple[int, Result], None, None]:
    """Read each object by the reader of its position, on several threads; yield its position and the result.

    The results come in any order. The bounds hold for all objects together, however many stores they are in.

    The consumer's own thread hands out the work, so a slow consumer slows the reading. The first exception of
    a reader is raised here. When the iterator ends, so do its threads: at once if they wait for work or for the event
    passed to the reader, otherwise after their request.
    """
    tasks: SimpleQueue[tuple[int, ObjectInfo] | None] = SimpleQueue()
    results: SimpleQueue[tuple[int, Result] | BaseException] = SimpleQueue()
    closed = threading.Event()

    def work() -> None:
        while (task := tasks.get()) is not None and not closed.is_set():
            index, info = task
            try:
                results.put((index, reader_of(index)(info, closed)))
            except BaseException as error:  # noqa: BLE001  # raised again in _next_result
                results.put(error)

    # Daemons: a request into a dead network must not keep a process that was asked to stop from exiting.
    threads = [threading.Thread(target=work, name="storage", daemon=True) for _ in range(min(THREADS, len(objects)))]
    for thread in threads:
        thread.start()
    sizes: dict[int, int] = {}  # of what is held
    held_bytes = 0
    try:
        for index, info in enumerate(objects):
            size = _size_in_memory(info)
            while len(sizes) == HELD_OBJECTS or (sizes and held_bytes + size > HELD_BYTES):
                finished, result = _next_result(results)
                held_bytes -= sizes.pop(finished)
                yield finished, result
            tasks.put((index, info))
            sizes[index] = size
            held_bytes += size
        for _ in range(len(sizes)):
            yield _next_result(results)
    finally:
        closed.set()
        for _ in threads:
            tasks.put(None)
        deadline = time.monotonic() + 2
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _size_in_memory(info: ObjectInfo) -> int:
    return UNPACKED_BYTES if info.gzip else info.size


def _next_result(results: SimpleQueue[tuple[int, Result] | BaseException]) -> tuple[int, Result]:
    finished = results.get()
    if isinstance(finished, BaseException):
        raise finished
    return finished
