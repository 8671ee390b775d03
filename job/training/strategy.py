"""Replicas: several devices that train one model together, by TensorFlow's tf.distribute.

Each replica has a copy of every variable and computes the gradients of its part of a batch. Their sum updates all
copies alike (docs/adr/0019-several-replicas.md).
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from job.runtime import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import keras
    from numpy.typing import NDArray

    from job.observability.progress import Progress
    from job.runtime.cluster import Peers
    from job.runtime.device import Device

SUM = tf.distribute.ReduceOp.SUM

WAIT_SECONDS = 0.5
"""Between two looks at whether this process has to end while it waits for others."""


class Part(NamedTuple):
    """A replica's part of a batch.

    Attributes:
        rows: of the batch, at least one.
        is_padding: the batch has fewer images than there are replicas, and another replica has this image: its weight
            is 0.
    """

    rows: slice
    is_padding: bool


def parts(images: int, replicas: int) -> list[Part]:
    """Return each replica's part of a batch of so many images: replica i of n has those from images * i // n on."""
    bounds = [images * number // replicas for number in range(replicas + 1)]
    return [
        Part(slice(start, stop), is_padding=False) if start < stop else Part(slice(0, 1), is_padding=True)
        for start, stop in itertools.pairwise(bounds)
    ]


class Replicas:
    """The replicas of all processes.

    Args:
        strategy: of TensorFlow; it has more than one replica.
        process: number of this process, from 0.

    Attributes:
        strategy: of TensorFlow.
        process: number of this process, from 0.
        processes: number of all processes.
        local: number of replicas in this process.
        total: number of all replicas.
        first: number of this process's first replica among all.
        stop_signal: name of the signal for which all processes stop after the current step; None: none so far. All
            processes have the same value, or all have one.
    """

    def __init__(self, strategy: tf.distribute.Strategy, process: int = 0) -> None:
        self.strategy = strategy
        self.local = len(strategy.extended.worker_devices)
        self.total = int(strategy.num_replicas_in_sync)
        self.process = process
        self.processes = self.total // self.local
        self.first = process * self.local
        self.stop_signal: str | None = None
        self._reduce: dict[tf.TensorSpec, Callable[..., list[list[tf.Tensor]]]] = {}

    def scope(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which variables get a copy on each replica."""
        scope: contextlib.AbstractContextManager[object] = self.strategy.scope()
        return scope

    def parts(self, images: int) -> list[Part]:
        """Return each replica's part of a batch, of all replicas."""
        return parts(images, self.total)

    def local_parts(self, images: int) -> list[Part]:
        """Return the parts of a batch of this process's replicas."""
        return self.parts(images)[self.first : self.first + self.local]

    def compile(
        self, function: Callable[..., Sequence[tf.Tensor]], signature: Sequence[Any]
    ) -> Callable[..., list[list[tf.Tensor]]]:
        """Compile a function that all replicas of this process compute at once.

        Args:
            function: tensors -> tensors. It reads each variable's copy of its replica.
            signature: of its arguments.

        Returns:
            A function: a list of the arguments for each replica of this process -> a list of its results for each.
        """
        strategy = self.strategy

        def on_replicas(arguments: Sequence[Sequence[Any]]) -> list[list[tf.Tensor]]:
            distributed = [
                strategy.experimental_distribute_values_from_function(
                    lambda context, values=values: values[context.replica_id_in_sync_group - self.first]
                )
                for values in zip(*arguments, strict=True)
            ]
            results = [strategy.experimental_local_results(result) for result in strategy.run(function, distributed)]
            return [[result[number] for result in results] for number in range(self.local)]

        compiled: Callable[..., list[list[tf.Tensor]]] = tf.function(
            on_replicas, input_signature=[[list(signature)] * self.local], autograph=False
        )
        # TensorFlow counts the traces by code object, which all functions that are compiled here share, and would warn
        # of one that is traced again and again.
        compiled._omit_frequent_tracing_warning = True  # type: ignore[attr-defined]  # noqa: SLF001
        return compiled

    def all_reduce(self, vectors: Sequence[Any]) -> NDArray[Any]:
        """Return the sum over all replicas.

        Args:
            vectors: of each replica of this process, [n].
        """
        # note: a collective operation keeps the shape of its first call, so there is one for each shape
        spec = tf.TensorSpec(vectors[0].shape, vectors[0].dtype)
        if spec not in self._reduce:

            def reduce(vector: tf.Tensor) -> list[tf.Tensor]:
                return [summed(vector)]

            self._reduce[spec] = self.compile(reduce, [spec])
        total: NDArray[Any] = self._reduce[spec]([[vector] for vector in vectors])[0][0].numpy()
        return total

    def sum(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sum over all processes, float64, of the same shape."""
        values = np.asarray(values, np.float64)
        if self.processes == 1:
            return values
        others = [np.zeros(values.size)] * (self.local - 1)
        return self.all_reduce([values.ravel(), *others]).reshape(values.shape)

    def agreed(self, compute: Callable[[], NDArray[Any]], size: int) -> NDArray[np.float64]:
        """Return what was computed, summed over all processes, and agree with them on whether to stop.

        If one process ran out of memory or received a signal, all of them act on it: a process that acted alone would
        leave the others waiting in the next collective operation.

        Args:
            compute: returns [size]; without collective operations.
            size: of its result.

        Raises:
            tf.errors.ResourceExhaustedError: in one of the processes.
        """
        exhausted = None
        try:
            values = np.asarray(compute(), np.float64)
        except tf.errors.ResourceExhaustedError as error:
            # note: without the traceback, which keeps the failed call's tensors alive
            values, exhausted = np.zeros(size), error.message
        signal = signals.received()
        total = self.sum(np.array([*values, signal is not None, exhausted is not None]))
        if total[-2]:
            self.stop_signal = self.stop_signal or signal or "a signal that another worker received"
        if total[-1]:
            raise tf.errors.ResourceExhaustedError(None, None, exhausted or "in another worker")
        return total[:-2]

    def wait(self, check: Callable[[], object], progress: Progress) -> None:
        """Wait until all processes are here. Collective.

        Signals are handled meanwhile, unlike in another collective operation, and the wait is not taken for a stall: a
        process that ends or is stopped is noticed as in training, and one that hangs ends by its own limit.

        Args:
            check: called often; what it raises ends the wait.
            progress: receives the progress.
        """
        if self.processes == 1:
            return
        arrived: futures.Future[object] = futures.Future()

        def meet() -> None:
            try:
                arrived.set_result(self.sum(np.zeros(1)))
            except Exception as error:  # noqa: BLE001  # it is raised below
                arrived.set_exception(error)

        with progress.phase("wait for the other workers", None, "") as phase:
            threading.Thread(target=meet, name="wait", daemon=True).start()
            while not arrived.done():
                futures.wait([arrived], WAIT_SECONDS)
                check()
                phase.advance(0)
        arrived.result()

    def copies(self, variable: keras.Variable) -> list[NDArray[Any]]:
        """Return a variable's value on each replica of this process."""
        return [copy.numpy() for copy in self.strategy.experimental_local_results(variable.value)]


def summed(vector: tf.Tensor) -> tf.Tensor:
    """Return the sum of a vector over all replicas; in a function that each replica runs."""
    # note: an argument of the function has no device where a process has one replica; its copy has
    return tf.distribute.get_replica_context().all_reduce(SUM, tf.identity(vector))


def create(machine: Device, peers: Peers | None = None, *, workers: int = 1, index: int = 0) -> Replicas | None:
    """Return the replicas of all workers, or those of this process, one for each device; None for a single one.

    Several workers score on a single device each once their training is over, so that it does not matter which start
    of a run does it.

    Args:
        machine: as configured.
        peers: the other workers that train the run, connected.
        workers: of the run.
        index: of this worker.
    """
    if peers is not None:
        return Replicas(peers.strategy, index)
    if machine.replicas == 1 or workers > 1:
        return None
    kind = machine.kind.upper()
    return Replicas(tf.distribute.MirroredStrategy([f"{kind}:{number}" for number in range(machine.replicas)]))


def scope(replicas: Replicas | None) -> contextlib.AbstractContextManager[object]:
    """Return the context in which variables are created; without replicas, one without effect."""
    return contextlib.nullcontext() if replicas is None else replicas.scope()
