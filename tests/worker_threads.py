"""Two workers as threads of one process: their collective operations are sums that both wait for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from job.observability.progress import Progress


class Meeting:
    """Sums over two threads."""

    def __init__(self) -> None:
        self.calls = 0
        self._barrier = threading.Barrier(2, timeout=20)
        self._values: dict[int, NDArray[Any]] = {}

    def sum(self, process: int, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum of what both threads have given."""
        self._values[process] = np.asarray(values, np.float64)
        self._barrier.wait()
        total: NDArray[np.float64] = self._values[0] + self._values[1]
        if self._barrier.wait() == 0:
            self.calls += 1
        return total


class FakeReplicas:
    """The replica of one of two workers.

    Attributes:
        process: number of the worker.
        processes: number of workers.
        local: number of replicas of a worker.
    """

    processes, local = 2, 1

    def __init__(self, meeting: Meeting, process: int) -> None:
        self.process = process
        self._meeting = meeting

    def sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum over both."""
        return self._meeting.sum(self.process, values)

    def wait(self, check: Callable[[], object], _progress: Progress) -> None:
        """Wait for the other one."""
        check()
        self.sum(np.zeros(1))

    def compile(self, function: Callable[..., Any], signature: Any) -> Callable[[Any], list[Any]]:
        """Compile a function of the one replica."""
        compiled = tf.function(function, input_signature=signature, autograph=False)
        return lambda arguments: [compiled(*arguments[0])]


def both(function: Callable[[Any], Any]) -> tuple[list[Any], Meeting]:
    """Return what a function returns in each worker, and what they summed by."""
    meeting = Meeting()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, [FakeReplicas(meeting, process) for process in (0, 1)])), meeting
