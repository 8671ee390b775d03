"""The workers of a run: processes that train one model together, each with its own devices.

They meet before TensorFlow connects them. TensorFlow would wait for a missing worker without a message and without
handling signals. So worker 0 listens on its address until all others have connected to it, and sends each of them what
it has to know about the run; only then does each start its TensorFlow server, worker 0 on the same port.

The connections of the meeting stay open while the workers train: the system closes those of a process that ends, so the
others notice at once. A process that is stopped, or cut off from the network, is noticed by TensorFlow's heartbeat.
What remains then starts again in place (`reexecute`): TensorFlow cannot replace a worker of a running cluster.

    worker 1 -> 0    finetune KEY 1
    worker 0 -> 1    meeting                 at once
    worker 0 -> 1    {"run_id": …}           when all are there
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from job.config import environment
from job.errors import PeerLostError
from job.runtime import signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from job.config.settings import WorkersSettings
    from job.observability.progress import Progress

Document = dict[str, Any]

HEARTBEAT_SECONDS = 5.0
"""After which a worker that does not answer counts as lost."""

HELLO_SECONDS = 5.0
"""Time for a worker to connect to worker 0 and to give its name."""

POLL_SECONDS = 0.5
"""Pause of a worker before it tries to reach worker 0 again."""

_MEETING = b"meeting\n"

_CACHE = "FINETUNE_WORKER_CACHE"
"""Environment variable with the folder of `cache_folder`."""


def meet(workers: WorkersSettings, key: str, document: Document, progress: Progress) -> Peers:
    """Wait in worker 0 until all other workers are there, and send each of them a document.

    Args:
        workers: their number and addresses.
        key: identifies the run's workers among those of other runs.
        document: what the others have to know, as plain JSON.
        progress: receives ``workers.waiting`` with the missing workers, when they change.
    """
    missing: list[int] | None = None
    expected = range(1, workers.count)
    _, port = _endpoint(workers.addresses[0])
    here: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as undo, _listen(port) as listener:
        undo.callback(_close, here)
        while True:
            for index in [index for index, connection in here.items() if _has_ended(connection)]:
                here.pop(index).close()
            if (now := [index for index in expected if index not in here]) != missing:
                missing = now
                if missing:
                    names = {index: workers.addresses[index] for index in missing}
                    progress.event("workers.waiting", severity="warning", missing=list(names.values()))
            if not missing:
                break
            if found := _accept(listener, key, workers.count):
                index, connection = found
                if index in here:  # it has started again, and its earlier connection is not known to be closed
                    here.pop(index).close()
                here[index] = connection
        line = json.dumps(document).encode() + b"\n"
        for connection in here.values():
            with contextlib.suppress(OSError):  # noticed by `Peers`
                connection.sendall(line)
        undo.pop_all()
    progress.event("workers.met", workers=workers.count)
    return Peers(here)


class Visitor:
    """A worker other than 0, which asks worker 0 for its meeting.

    Args:
        workers: the addresses, and the number of this worker.
        key: as in `meet`.

    """

    def __init__(self, workers: WorkersSettings, key: str) -> None:
        self._hello = f"finetune {key} {workers.index}\n".encode()
        self._address = _endpoint(workers.addresses[0])
        self._connection: socket.socket | None = None
        self._received = b""

    @property
    def is_expected(self) -> bool:
        """Whether worker 0 is at the meeting, and waits for others."""
        return self._received.startswith(_MEETING)

    def ask(self, seconds: float) -> tuple[Document, Peers] | None:
        """Wait for the document of worker 0, and return it with the open connection; None if it does not come in time.

        Args:
            seconds: limit of the wait; it may be exceeded by the time that the connection takes.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._connection is None and not self._connect():
                time.sleep(min(POLL_SECONDS, left))
                continue
            assert self._connection is not None
            self._connection.settimeout(left)
            try:
                data = self._connection.recv(2**16)
            except TimeoutError:
                return None
            except OSError:
                data = b""
            self._received += data
            # What does not answer like this is worker 0's TensorFlow, of a cluster that this worker has left.
            if not data or not (_MEETING.startswith(self._received[: len(_MEETING)]) or self.is_expected):
                self.close()
                time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            elif self._received.count(b"\n") == 2:
                connection, self._connection = self._connection, None
                return json.loads(self._received.split(b"\n")[1]), Peers({0: connection})
        return None

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._received = None, b""

    def _connect(self) -> bool:
        try:
            self._connection = socket.create_connection(self._address, HELLO_SECONDS)
            self._connection.sendall(self._hello)
        except OSError:  # also if its name does not exist yet
            self.close()
            return False
        return True


class Peers:
    """The connections to other workers, from the meeting until the end of the process.

    Args:
        connections: number of the worker -> connection.

    Attributes:
        lost: the first worker that has ended; None if all are there.
        strategy: of TensorFlow, from `join` on.
    """

    def __init__(self, connections: Mapping[int, socket.socket]) -> None:
        self.lost: int | None = None
        self.strategy: Any = None
        self._connections = dict(connections)
        self._on_lost: Callable[[], object] = reexecute
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def check(self) -> None:
        """Raise an error if a worker has ended.

        Raises:
            PeerLostError: it has.
        """
        if self.lost is not None:
            raise lost_error(f"worker {self.lost} has ended")

    def on_lost(self, action: Callable[[], object]) -> None:
        """Call `action` from another thread once a worker has ended; at once if it has. Before: `reexecute`."""
        with self._lock:
            self._on_lost = action
            if self.lost is not None:
                action()

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, connection in self._connections.items():
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, index)
            while self.lost is None:
                for key, _ in selector.select():
                    if _has_ended(self._connections[key.data]):
                        with self._lock:
                            self.lost = key.data
                            self._on_lost()
                        break


def join(workers: WorkersSettings, peers: Peers) -> None:
    """Connect TensorFlow to that of the other workers, before its first operation, and set the strategy of `peers`.

    If a worker ends meanwhile, this process starts again: the call would never return. Afterwards the collective
    operations in progress fail at once if one ends.

    Args:
        workers: of the run, after their meeting.
        peers: from the meeting.

    Raises:
        PeerLostError: TensorFlow could not connect.
    """
    import tensorflow as tf
    from tensorflow.python.distribute import collective_all_reduce_strategy
    from tensorflow.python.eager import context as contexts

    protocol, context = collective_all_reduce_strategy.coordination_config_pb2, contexts.context()
    context.configure_coordination_service(
        "standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=600_000,
        heartbeat_timeout_in_ms=int(1000 * HEARTBEAT_SECONDS),
        shutdown_barrier_timeout_in_ms=1,
        coordinated_jobs=[protocol.CoordinatedJob(name="worker", num_tasks=workers.count)],
    )
    with loss_converted():
        peers.strategy = tf.distribute.MultiWorkerMirroredStrategy(
            tf.distribute.cluster_resolver.SimpleClusterResolver(
                tf.train.ClusterSpec({"worker": list(workers.addresses)}),
                task_type="worker",
                task_id=workers.index,
                rpc_layer="grpc",
            )
        )
    signals.handle()  # note: TensorFlow has replaced the handlers below Python's
    signals.leave_threads()  # an ordinary exit would wait for the other workers
    peers.on_lost(lambda: context.abort_collective_ops(tf.errors.UNAVAILABLE, "a worker has ended"))


def lost_error(message: str) -> PeerLostError:
    """Return the error that makes this worker start again."""
    return PeerLostError(message, remedy="nothing to do: this worker starts again, and waits for it")


@contextlib.contextmanager
def loss_converted() -> Iterator[None]:
    """Raise PeerLostError if a collective operation fails since another worker has ended or does not answer."""
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")  # note: importing takes seconds, and no other code raises this
        if tensorflow is None:
            raise
        kinds = tensorflow.errors
        lost = (kinds.UnavailableError, kinds.AbortedError, kinds.CancelledError, kinds.DeadlineExceededError)
        if not isinstance(error, lost):
            raise
        raise lost_error(f"another worker does not answer: {type(error).__name__}") from error


def reexecute() -> NoReturn:
    """Replace this process by a new start of the same program, with the same arguments and environment.

    Signals are held back until the new program handles them.
    """
    signals.hold()
    # What libraries have left open would keep the ports and the GPU busy.
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(number, False)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # itself, as it was started


def cache_folder() -> str:
    """Return a temporary folder for the cache, the same after `reexecute`."""
    folder = environment.get(_CACHE)
    if folder is None:
        environment.set_value(_CACHE, folder := tempfile.mkdtemp(prefix="finetune-"))
    return folder


def remove_cache_folder() -> None:
    """Remove the folder of `cache_folder`, if there is one."""
    if folder := environment.get(_CACHE):
        shutil.rmtree(folder, ignore_errors=True)


def _endpoint(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _listen(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _accept(listener: socket.socket, key: str, count: int) -> tuple[int, socket.socket] | None:
    """Return a worker that connects now, and its number; None if none does within `POLL_SECONDS`, or another one."""
    listener.settimeout(POLL_SECONDS)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return None
    connection.settimeout(HELLO_SECONDS)
    with contextlib.suppress(OSError, ValueError):
        name, its_key, index = connection.makefile("rb").readline(200).decode().split()
        if (name, its_key) == ("finetune", key) and 0 < int(index) < count:
            connection.sendall(_MEETING)
            return int(index), connection
    connection.close()
    return None


def _close(connections: Mapping[int, socket.socket]) -> None:
    for connection in connections.values():
        connection.close()


def _has_ended(connection: socket.socket) -> bool:
    """Whether the process at the other end has closed the connection."""
    connection.setblocking(False)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True
