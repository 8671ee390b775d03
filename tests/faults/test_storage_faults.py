"""Storage that fails is waited for, or ends the run with 20: never is a part of a file taken for the whole."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING

import pytest
from attempts import Attempt
from runs import SMALL, arrays_sha256, draw

from job import emulator, storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Proxy, Reply, Seen


@pytest.fixture
def pictures(bucket: str, tmp_path: Path) -> str:
    """Upload ten pictures of each of two classes; return their URI."""
    store = storage.open_store(f"gs://{bucket}/in")
    for n in range(10):
        for label, shade in (("dark", 60), ("light", 190)):
            draw(tmp_path / "one.jpg", shade=shade, seed=n)
            store.write(f"{label}/{n}.jpg", tmp_path / "one.jpg")
    return store.uri


def fetch_arrays(output: str, tmp_path: Path) -> str:
    """Return the sha256 over all arrays of the one model that was published."""
    store = storage.open_store(output)
    [name] = [found.name for found in store.list("runs") if found.name.endswith("model.keras")]
    read = store.read(name)
    assert read is not None
    (tmp_path / "model.keras").write_bytes(read[0])
    return arrays_sha256(tmp_path / "model.keras")


class Trouble:
    """Every request fails once, in one of many ways, before it is let through."""

    def __init__(self, reply: Callable[..., Reply]) -> None:
        self._reply = reply
        self.kinds: list[str] = []
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def __call__(self, request: Seen, forward: Callable[[], Reply]) -> Reply | None:
        """Fail, or forward."""
        key = (request.method, request.path.partition("?")[0] if request.method == "GET" else request.path)
        with self._lock:
            if key in self._seen:
                return forward()
            self._seen.add(key)
            kind = ("503", "429", "500", "reset", "cut", "flip", "late")[len(self.kinds) % 7]
            self.kinds.append(kind)
        if kind == "reset":
            return None
        if kind.isdigit():
            return self._reply(int(kind), **({"Retry-After": "1"} if kind == "429" else {}))
        if kind == "late":
            time.sleep(2)
        reply = forward()
        body = bytearray(reply.body)
        if kind == "cut" and len(body) > 100:
            return dataclasses.replace(reply, cut_at=len(body) // 2)
        if kind == "flip" and body and request.is_bulk:
            body[len(body) // 2] ^= 1
        return dataclasses.replace(reply, body=bytes(body))


def test_trouble_on_every_request(bucket: str, pictures: str, proxy: Proxy, tmp_path: Path) -> None:
    """Busy answers, resets, cut bodies, flipped bits and slow answers, one for each request: the same bits come out."""
    with Attempt([*SMALL, "--input.uri", pictures, "--output.uri", f"gs://{bucket}/calm"]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    trouble = Trouble(proxy.reply)
    proxy.fault = trouble
    with Attempt([*SMALL, "--input.uri", pictures, "--output.uri", f"gs://{bucket}/rough"]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    proxy.fault = lambda _, forward: forward()

    assert {"503", "429", "500", "reset", "cut", "flip", "late"} == set(trouble.kinds)
    assert fetch_arrays(f"gs://{bucket}/calm", tmp_path) == fetch_arrays(f"gs://{bucket}/rough", tmp_path)


def test_store_that_comes_late(tmp_path: Path) -> None:
    """A store that is not there yet is waited for, with a line in the log every few seconds."""
    with emulator.running() as first:
        port = int(first.url.rpartition(":")[2])
    arguments = [*SMALL, "--input.uri", "gs://late/in", "--output.uri", str(tmp_path / "out")]
    with Attempt(arguments, STORAGE_EMULATOR_HOST=f"http://127.0.0.1:{port}") as attempt:
        time.sleep(20)
        assert attempt.process.poll() is None
        waiting = [event for event in attempt.events if event["severity"] == "WARNING"]
    assert 3 <= len(waiting) <= 30, waiting


def test_no_permission(bucket: str, pictures: str, proxy: Proxy) -> None:
    """403 ends the run at once with exit 5, naming the permission and the resource."""
    proxy.fault = lambda _request, _forward: proxy.reply(403, b'{"error": {"code": 403, "message": "no"}}')
    with Attempt([*SMALL, "--input.uri", pictures, "--output.uri", f"gs://{bucket}/out"]) as attempt:
        assert 5 == attempt.wait()
    assert "storage.objects" in attempt.events[-1]["message"]
    assert bucket in attempt.events[-1]["message"]
