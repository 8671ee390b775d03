"""What all tests share: a real storage emulator, and a proxy before it that makes trouble."""

from __future__ import annotations

import http.client
import threading
import uuid
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from job import emulator as emulators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Seen:
    """A request as the proxy saw it. ``path`` has the query; the names of ``headers`` are in lower case."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def is_bulk(self) -> bool:
        """Whether it is one of obstore's, which are the only ones to the XML paths."""
        return not self.path.startswith(("/storage/", "/upload/", "/download/"))


@dataclass(frozen=True)
class Reply:
    """What the proxy answers; ``cut_at``: the connection ends after so many bytes of the body."""

    status: int
    body: bytes
    headers: dict[str, str]
    cut_at: int | None = None


class Proxy(ThreadingHTTPServer):
    """Stands before the emulator. ``fault`` gets each request and a function that forwards it; None hangs up.

    Attributes:
        url: the proxy's own address.
        seen: the requests, in the order in which they came.
    """

    daemon_threads = True

    def __init__(self, target: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Forward)
        self.target = target.removeprefix("http://")
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[Seen] = []
        self.fault: Callable[[Seen, Callable[[], Reply]], Reply | None] = lambda _, forward: forward()

    @staticmethod
    def reply(status: int, body: bytes = b"{}", cut_at: int | None = None, **headers: str) -> Reply:
        """Return an answer for ``fault`` to give."""
        return Reply(status, body, headers, cut_at)

    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that hang up."""


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Seen(self.command, self.path, headers)
        self.server.seen.append(request)
        reply = self.server.fault(request, lambda: self._forward(request, body))
        if reply is not None:
            self.send_response_only(reply.status)
            for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut_at])
        self.close_connection = self.close_connection or reply is None or reply.cut_at is not None

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _handle  # noqa: N815  # http.server's names

    def _forward(self, request: Seen, body: bytes) -> Reply:
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        headers = {name: value for name, value in request.headers.items() if name not in {"host", "connection"}}
        connection.request(request.method, request.path, body, headers)
        answer = connection.getresponse()
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}
        }
        reply = Reply(answer.status, answer.read(), kept)
        connection.close()
        return reply

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """Return the URL of a running emulator."""
    with emulators.running() as running:
        yield running.url


@pytest.fixture
def bucket(emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a new bucket in the emulator, which STORAGE_EMULATOR_HOST names during the test."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    emulators.create_bucket(emulator, name)
    return name


@pytest.fixture
def proxy(emulator: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Return a proxy before the emulator, which STORAGE_EMULATOR_HOST names during the test. Use it with ``bucket``."""
    assert bucket
    with Proxy(emulator) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server
        server.shutdown()
        thread.join()
