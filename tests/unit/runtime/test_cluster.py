"""How the workers of a run meet, and notice that one of them has ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from runs import Facts

from job.config.settings import WorkersSettings
from job.errors import PeerLostError
from job.observability.progress import Progress
from job.runtime import cluster

KEY, DOCUMENT = "uid-1", {"run_id": "r"}


def addresses(count: int) -> tuple[str, ...]:
    """Return free addresses on this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return found


def settings(count: int) -> list[WorkersSettings]:
    """Return the settings of each worker."""
    found = addresses(count)
    return [WorkersSettings(count=count, index=index, addresses=found) for index in range(count)]


def visit(workers: WorkersSettings, key: str = KEY, tries: int = 20) -> tuple[dict[str, Any], cluster.Peers] | None:
    """Ask worker 0 until it has answered."""
    visitor = cluster.Visitor(workers, key)
    for _ in range(tries):
        if met := visitor.ask(1):
            return met
    visitor.close()
    return None


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often."""
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.02)


@pytest.fixture
def waiting() -> Facts:
    """The facts of the events that name who is missing."""
    return Facts("workers.waiting")


@pytest.fixture
def progress(waiting: Facts) -> Progress:
    """Events with these listeners."""
    return Progress([waiting])


@pytest.fixture
def met(progress: Progress) -> list[cluster.Peers]:
    """Three workers after their meeting: the connections of each."""
    workers = settings(3)
    with ThreadPoolExecutor(3) as pool:
        visits = [pool.submit(visit, one) for one in workers[1:]]
        peers = [cluster.meet(workers[0], KEY, DOCUMENT, progress)]
        for one in visits:
            found = one.result()
            assert found is not None
            assert DOCUMENT == found[0]
            peers.append(found[1])
    for one in peers:
        one.on_lost(int)
    return peers


def test_meeting(met: list[cluster.Peers], waiting: Facts) -> None:
    """Each worker gets worker 0's document, and worker 0 reports who is missing each time that it changes."""
    assert [2, 1] == [len(facts["missing"]) for facts in waiting.seen]
    for peers in met:
        peers.check()


def test_worker_that_ends_is_lost(met: list[cluster.Peers]) -> None:
    """Worker 0 notices the end of another one, whose connection the system closes; others notice that of worker 0."""
    for ending, noticing, index in ((2, 0, 2), (0, 1, 0)):
        noticed = threading.Event()
        met[noticing].on_lost(noticed.set)
        for connection in met[ending]._connections.values():
            connection.shutdown(socket.SHUT_RDWR)
        assert noticed.wait(5)
        with pytest.raises(PeerLostError, match=f"worker {index} has ended"):
            met[noticing].check()
        late = threading.Event()
        met[noticing].on_lost(late.set)
        assert late.is_set()


def test_worker_that_starts_again_before_the_meeting(progress: Progress) -> None:
    """A worker that ends while worker 0 waits is missing again, and its next start counts once."""
    first, second, third = settings(3)
    with ThreadPoolExecutor(2) as pool:
        meeting = pool.submit(cluster.meet, first, KEY, DOCUMENT, progress)
        visitor = cluster.Visitor(second, KEY)
        while not visitor.is_expected:
            assert visitor.ask(0.1) is None
        visitor.close()
        other = pool.submit(visit, third)
        assert visit(second)
        assert other.result()
        meeting.result().on_lost(int)


def test_strangers_are_not_counted(progress: Progress) -> None:
    """Workers of another run, and what speaks another protocol, do not take part."""
    first, second = settings(2)
    with ThreadPoolExecutor(1) as pool:
        meeting = pool.submit(cluster.meet, first, KEY, DOCUMENT, progress)
        assert visit(second, "uid-2", tries=1) is None
        with socket.create_connection(("127.0.0.1", int(first.addresses[0].rpartition(":")[2]))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not meeting.done()
        assert visit(second)
        meeting.result().on_lost(int)


def test_worker_0_in_another_cluster() -> None:
    """What TensorFlow answers on worker 0's address is no invitation."""
    _, second = settings(2)
    port = int(second.addresses[0].rpartition(":")[2])
    visitor = cluster.Visitor(second, KEY)
    with socket.create_server(("127.0.0.1", port)) as server, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"\x00\x00\x18\x04\x00")
                connection.recv(100)

        answered = pool.submit(answer)
        assert visitor.ask(0.2) is None
        assert not visitor.is_expected
        answered.result()


def test_reexecute(tmp_path: Path) -> None:
    """The same program starts again in the process, with its arguments, and has no file of the first start open.

    A signal meanwhile ends the new one with 75.
    """
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, signal, sys
sys.path.insert(0, {str(Path(cluster.__file__).parents[2])!r})
from job.runtime import cluster, signals
again = "AGAIN" in os.environ
print(os.getpid(), sys.argv[1:], cluster.cache_folder(), flush=True)
if again:
    try:
        os.fstat(int(os.environ["AGAIN"]))
    except OSError:
        pass
    else:
        sys.exit("a file of the first start is open")
    signals.install()
    sys.exit(3)
held = os.dup2(os.open(os.devnull, os.O_RDONLY), 90)
os.environ["AGAIN"] = str(held)
if sys.argv[1] == "stopped":
    signals.hold()
    os.kill(os.getpid(), signal.SIGTERM)
cluster.reexecute()
""")
    for argument, code in (("x y", 3), ("stopped", 75)):
        done = subprocess.run([sys.executable, program, argument], capture_output=True, text=True, check=False)
        first, second = done.stdout.splitlines()
        assert (code, first) == (done.returncode, second), done.stderr
        os.rmdir(first.split()[-1])  # noqa: PTH106  # the temporary folder that both starts used


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary folder is the same each time, until it is removed."""
    monkeypatch.setattr(cluster.environment, "get", (variables := {}).get)
    monkeypatch.setattr(cluster.environment, "set_value", variables.__setitem__)
    cluster.remove_cache_folder()
    folder = Path(cluster.cache_folder())

    assert folder.is_dir()
    assert str(folder) == cluster.cache_folder()
    cluster.remove_cache_folder()
    assert not folder.exists()


def test_failed_collective_operations_are_lost_workers() -> None:
    """What TensorFlow raises where another worker has ended starts this one again; other errors are left alone."""
    from tensorflow import errors as tf_errors

    for kind in (tf_errors.UnavailableError, tf_errors.AbortedError):
        with pytest.raises(PeerLostError), cluster.loss_converted():
            raise kind(None, None, "ended")
    for other in (tf_errors.InvalidArgumentError(None, None, "shape"), ValueError("other")):
        with pytest.raises(type(other)), cluster.loss_converted():
            raise other
