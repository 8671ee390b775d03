"""A real proxy between the job and the emulator, which makes trouble: mitmproxy, in an environment of its own.

A test gives it one function, which gets each request and returns what happens to it. The function runs in the test's
own process, so it may count, remember and wait; the proxy does what it says (fault_addon.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements/proxy.txt"
VENV = ROOT / ".venv/proxy"
START_SECONDS = 60


@dataclass(frozen=True)
class Seen:
    """A request as the proxy saw it.

    Attributes:
        method: in capitals.
        path: with the query.
        headers: their names in lower case.
        start: of the body, up to 1,000 bytes, each a character.
    """

    method: str
    path: str
    headers: dict[str, str]
    start: str

    @property
    def is_bulk(self) -> bool:
        """Whether it is one of obstore's, which are the only ones to the XML paths."""
        return not self.path.startswith(("/storage/", "/upload/", "/download/"))

    @property
    def is_download(self) -> bool:
        """Whether an object's bytes are asked for, by either client."""
        return self.method == "GET" and (self.is_bulk or "alt=media" in self.path)

    @property
    def bucket(self) -> str:
        """The name of the bucket that it is about."""
        path = urllib.parse.unquote(self.path.partition("?")[0])
        return path.split("/")[1] if self.is_bulk else path.partition("/b/")[2].partition("/")[0]

    @property
    def object(self) -> str:
        """The name of the object that it is about; empty where it is a listing."""
        path = self.path.partition("?")[0]
        if path.startswith("/upload/"):
            named = re.search(r'"name": "([^"]+)"', self.start)
            return named[1] if named else ""
        return urllib.parse.unquote(path.split("/", 2)[2] if self.is_bulk else path.partition("/o/")[2])


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one request. By default it is passed on, and so is its answer.

    Attributes:
        delay: seconds of silence first.
        status: the proxy itself answers with this; nothing is passed on.
        headers: of that answer.
        body: of that answer.
        hang_up: the connection is reset: ``before`` the request is passed on, or ``after``, in the place of the answer.
        replace: a text in the answer's body, and what stands there instead.
        flip: a bit in the middle of the answer's body is another one.
        cut_to: the connection ends after this part of the answer's body, from 0 to 1.
        reset: it ends so by a reset, and not in good order.
    """

    delay: float = 0.0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang_up: Literal["before", "after"] | None = None
    replace: tuple[str, str] | None = None
    flip: bool = False
    cut_to: float | None = None
    reset: bool = False


def reply(status: int, body: bytes = b"{}", **headers: str) -> Fault:
    """Return the fault that is an answer of the proxy's own."""
    return Fault(status=status, body=body, headers=headers)


HANG_UP = Fault(hang_up="before")
LOSE_THE_ANSWER = Fault(hang_up="after")


class Proxy:
    """A running proxy. Set ``fault`` to make trouble.

    Args:
        url: its address.
        connection: to the addon.

    Attributes:
        fault: gets each request, on a thread of its own, and returns what happens to it; None: nothing unusual.
        seen: the requests, in the order in which they came.
        done: the faults that were carried out, each with its request; not those that found nothing to damage.
    """

    def __init__(self, url: str, connection: socket.socket) -> None:
        self.url = url
        self._connection = connection
        self._writing = threading.Lock()
        self._open: dict[str, tuple[Seen, Fault]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self.calm()
        self._reader.start()

    def calm(self) -> None:
        """Forget all faults and what was seen."""
        self.fault: Callable[[Seen], Fault | None] = lambda _: None
        self.seen: list[Seen] = []
        self.done: list[tuple[Seen, Fault]] = []

    def listen(self, *, yes: bool) -> None:
        """Accept connections, or refuse them as a machine does on which nothing listens."""
        self._send({"server": yes})
        self.wait_until_listening(yes=yes)

    def wait_until_listening(self, *, yes: bool = True, seconds: float = START_SECONDS) -> None:
        """Wait until connections are accepted, or refused."""
        port = int(self.url.rpartition(":")[2])
        deadline = time.monotonic() + seconds
        while yes is not _listens(port):
            assert time.monotonic() < deadline, f"the proxy is {'not ' if yes else ''}listening"
            time.sleep(0.05)

    def _read(self) -> None:
        with contextlib.suppress(ConnectionResetError):  # the proxy was ended
            for line in self._connection.makefile("rb"):
                message = json.loads(line)
                if "seen" in message:
                    seen = Seen(*message["seen"])
                    self.seen.append(seen)
                    threading.Thread(target=self._decide, args=(message["id"], seen), daemon=True).start()
                else:
                    self.done.append(self._open.pop(message["id"]))

    def _decide(self, request: str, seen: Seen) -> None:
        fault: Fault | None = HANG_UP  # also where the test's function fails
        try:
            fault = self.fault(seen)
        finally:
            document = None
            if fault is not None:
                self._open[request] = (seen, fault)
                damages = bool(fault.replace or fault.flip or fault.cut_to is not None)
                document = dataclasses.asdict(fault) | {"body": fault.body.decode("latin-1"), "damages": damages}
            self._send({"id": request, "fault": document})

    def _send(self, message: object) -> None:
        with self._writing, contextlib.suppress(BrokenPipeError):  # at the end of all tests
            self._connection.sendall(json.dumps(message).encode() + b"\n")


@contextlib.contextmanager
def running(target: str) -> Iterator[Proxy]:
    """Run a proxy before a server, until the context ends.

    Args:
        target: the server's address.
    """
    program = _installed() / "bin/mitmdump"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as output:
        options = ["listen_host=127.0.0.1", f"listen_port={port}", f"confdir={home}", f"test_socket={theirs.fileno()}"]
        command = [program, "--quiet", "--mode", f"reverse:{target}", "--scripts", ROOT / "tests/fault_addon.py"]
        for option in options:
            command += ["--set", option]
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        theirs.close()
        try:
            proxy = Proxy(f"http://127.0.0.1:{port}", ours)
            try:
                proxy.wait_until_listening()
            except AssertionError:
                output.seek(0)
                pytest.fail(f"mitmproxy did not start: {output.read().decode(errors='replace')}")
            yield proxy
        finally:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _installed() -> Path:
    """Return the environment with mitmproxy, made where it is not there or the lock has changed."""
    VENV.parent.mkdir(exist_ok=True)
    with VENV.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two suites may run at once
        marker = VENV / "installed.txt"
        if not marker.exists() or marker.read_bytes() != LOCK.read_bytes():
            subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
            # Not its dependencies: they are all in the lock, one of them newer than mitmproxy says (pyproject.toml).
            pip = [VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run(
                [*pip, "--require-hashes", "--only-binary", ":all:", "-r", LOCK],
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
            )
            if "No matching distribution found" in done.stderr:
                pytest.skip("mitmproxy, which stands between job and store, cannot be installed without an index")
            assert 0 == done.returncode, done.stderr
            marker.write_bytes(LOCK.read_bytes())
    return VENV
