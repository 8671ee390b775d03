"""Storage that fails is waited for, or ends the run with 20: never is a part of a file taken for the whole."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from attempts import Attempt
from digests import arrays_sha256
from fault_proxy import HANG_UP, LOSE_THE_ANSWER, Fault, reply

from job import storage
from job.storage import emulator as emulators
from job.storage.google_calls import SECONDS_BETWEEN_LOG_LINES

if TYPE_CHECKING:
    from collections.abc import Callable

    from fault_proxy import Proxy, Seen

    from job.storage import Store

KINDS = {
    "429": reply(429, **{"Retry-After": "1"}),
    "500": reply(500),
    "503": reply(503),
    "reset before": HANG_UP,
    "answer lost": LOSE_THE_ANSWER,
    "reset in mid-body": Fault(cut_to=0.5, reset=True),
    "truncated": Fault(cut_to=0.5),
    "late": Fault(delay=2),
    "flipped": Fault(flip=True),  # the last: only where a checksum tells it, which is in downloads
}
OUTAGE_SECONDS = 60
SILENCE_SECONDS = 10


def fetch_arrays(output: str, tmp_path: Path) -> str:
    """Return the sha256 over all arrays of the one model that was published."""
    store = storage.open_store(output)
    [name] = [found.name for found in store.list("runs") if found.name.endswith("model.keras")]
    read = store.read(name)
    assert read is not None
    (tmp_path / "model.keras").write_bytes(read[0])
    return arrays_sha256(tmp_path / "model.keras")


def upload(folder: str, bucket: str) -> str:
    """Copy a folder of pictures to a bucket; return their URI."""
    store = storage.open_store(f"gs://{bucket}/in")
    for path in Path(folder).glob("*/*"):
        store.write(path.relative_to(folder).as_posix(), path)
    return store.uri


class Trouble:
    """Every request fails once, in one of many ways, before it is let through."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str, str]] = set()
        self._lock = threading.Lock()
        kinds = list(KINDS.values())
        self._bulk, self._downloads, self._others = map(itertools.cycle, (kinds, kinds, kinds[:-1]))

    def __call__(self, request: Seen) -> Fault | None:
        """Fail, or let it pass."""
        path = request.path.partition("?")[0] if request.method == "GET" else request.path
        key = (request.method, path, request.object)
        with self._lock:
            if key in self._seen:
                return None
            self._seen.add(key)
            return next(self._bulk if request.is_bulk else self._downloads if request.is_download else self._others)


def test_trouble_on_every_request(
    uploaded: tuple[str, ...], bucket: str, undisturbed: str, proxy: Proxy, tmp_path: Path
) -> None:
    """Busy answers, resets, cut bodies, flipped bits, slow answers, one for each request: the same bits come out."""
    proxy.fault = Trouble()
    with Attempt([*uploaded, "--output.uri", f"gs://{bucket}/out"]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    done = list(proxy.done)
    proxy.calm()

    assert undisturbed == fetch_arrays(f"gs://{bucket}/out", tmp_path)
    kinds: dict[tuple[bool, bool], set[str]] = {}
    for request, fault in done:
        [kind] = [kind for kind, one in KINDS.items() if one == fault]
        kinds.setdefault((request.is_bulk, request.is_download), set()).add(kind)
    others = {*KINDS} - {"flipped"}
    assert {(True, True): {*KINDS}, (False, True): {*KINDS}, (False, False): others} == kinds


# A generation that is not the expected one


def test_lost_index(uploaded: tuple[str, ...], bucket: str, undisturbed: str, proxy: Proxy, tmp_path: Path) -> None:
    """412 for the checkpoints' index means that another process has the run: this one stops with 75, losing nothing."""
    count = itertools.count()
    run = [*uploaded, "--output.uri", f"gs://{bucket}/out"]
    proxy.fault = lambda request: (
        reply(412) if request.method == "POST" and request.object.endswith("/index.json") and next(count) == 4 else None
    )
    with Attempt(run) as attempt:
        assert 75 == attempt.wait(), attempt.events[-1]
    with Attempt(run) as following:
        assert following.wait_for("checkpoint.loaded")
        assert 0 == following.wait(), following.events[-1]

    assert "another process has taken this run over" in attempt.events[-1]["message"]
    assert undisturbed == fetch_arrays(f"gs://{bucket}/out", tmp_path)


def test_success_of_another_process(uploaded: tuple[str, ...], bucket: str, proxy: Proxy) -> None:
    """412 for _SUCCESS means that another process has published the run: what follows is done all the same."""
    output = storage.open_store(f"gs://{bucket}/out")
    rival = storage.open_store(f"gs://{bucket}")
    written: list[str] = []

    def be_quicker(request: Seen) -> None:
        if request.object.endswith("/_SUCCESS") and request.method == "POST" and not written:
            written.append(request.object)
            rival.write(request.object, b"{}", if_generation_match=0)

    proxy.fault = be_quicker
    with Attempt([*uploaded, "--output.uri", output.uri]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]

    assert "run.already_published" in attempt.names()
    assert output.read("latest.json")
    assert not [found.name for found in output.list("runs") if "/checkpoints/" in found.name]


# Long waits


class Outage:
    """From one request on, and for some seconds, the connection of every request is reset.

    Args:
        begins: whether it is this request with which it begins.
        seconds: how long it lasts.

    Attributes:
        hit: the requests that met it.
    """

    def __init__(self, begins: Callable[[Seen], bool], seconds: float = OUTAGE_SECONDS) -> None:
        self._begins = begins
        self._seconds = seconds
        self._until: float | None = None
        self._lock = threading.Lock()
        self.hit: list[Seen] = []

    def __call__(self, request: Seen) -> Fault | None:
        """Reset, or let it pass."""
        with self._lock:
            if self._until is None and self._begins(request):
                self._until = time.monotonic() + self._seconds
            if self._until is None or time.monotonic() >= self._until:
                return None
            self.hit.append(request)
            return HANG_UP


class Silence:
    """The first request of each sort is answered late."""

    def __init__(self) -> None:
        self.sorts: set[tuple[str, bool, bool, str]] = set()
        self._lock = threading.Lock()

    def __call__(self, request: Seen) -> Fault | None:
        """Be silent for a while, or let it pass."""
        what = "checkpoint" if "/checkpoints/" in request.object else "object" if request.object else "listing"
        sort = (request.method, request.is_bulk, request.is_download, what)
        with self._lock:
            if sort in self.sorts:
                return None
            self.sorts.add(sort)
            return Fault(delay=SILENCE_SECONDS)


class Ordeal(NamedTuple):
    """A run of its own, from and to a bucket of its own.

    Attributes:
        run: its flags.
        bucket: its name.
        output: where it is published.
        arrays: the sha256 of what must come out.
        faults: the proxy's, by bucket.
        folder: for files.
    """

    run: list[str]
    bucket: str
    output: Store
    arrays: str
    faults: dict[str, Callable[[Seen], Fault | None]]
    folder: Path

    def undergo(self, fault: Callable[[Seen], Fault | None]) -> Attempt:
        """Run the job under a fault to its end."""
        self.faults[self.bucket] = fault
        with Attempt(self.run) as attempt:
            attempt.wait()
        del self.faults[self.bucket]
        return attempt

    def check_published(self, attempt: Attempt) -> None:
        """Assert that all went well, to the same bits."""
        assert 0 == attempt.process.returncode, attempt.events[-1]
        assert self.arrays == fetch_arrays(self.output.uri, self.folder)


def outage_while_downloading(ordeal: Ordeal) -> None:
    """An outage of 60 seconds in the middle of the pass over the data is waited out."""
    count = itertools.count()
    outage = Outage(lambda request: request.is_bulk and next(count) == 10)
    ordeal.check_published(ordeal.undergo(outage))
    assert any(request.is_download and not request.is_bulk for request in outage.hit)


def outage_while_training(ordeal: Ordeal) -> None:
    """An outage of 60 seconds that begins with the write of a checkpoint is waited out."""
    count = itertools.count()
    outage = Outage(
        lambda request: request.method == "POST" and request.object.endswith("/index.json") and next(count) == 3
    )
    ordeal.check_published(ordeal.undergo(outage))
    assert sum(request.object.endswith("/index.json") for request in outage.hit) > 5


def silence(ordeal: Ordeal) -> None:
    """Ten seconds of silence, once in each sort of request, are waited out."""
    fault = Silence()
    ordeal.check_published(ordeal.undergo(fault))
    assert {("GET", True, True, "object"), ("GET", False, False, "listing")} < fault.sorts
    assert {("POST", False, False, "checkpoint"), ("POST", False, False, "object")} < fault.sorts


def endless_outage(ordeal: Ordeal) -> None:
    """One that does not end, in mid-upload, ends the run with 20, nothing half published; the next start completes."""
    outage = Outage(
        lambda request: request.method == "POST" and request.object.endswith("/model/model.keras"), math.inf
    )
    # All but the claim: to release it is tried for as long again, and nothing would be learned from that.
    impatient = ordeal._replace(run=[*ordeal.run, "--storage.retry_seconds", "20"])
    attempt = impatient.undergo(lambda request: None if "/checkpoints/" in request.object else outage(request))
    assert 20 == attempt.process.returncode, attempt.events[-1]
    failed = attempt.wait_for("run.failed")
    assert failed
    assert re.search(r"/model/model\.keras is unreachable after \d+ tries in [12]\d s", failed["message"]), failed
    left = {info.name: info for info in ordeal.output.list()}
    assert any("/model/" in name for name in left)
    assert not [name for name in left if name.endswith(("/_SUCCESS", "/manifest.json", "model.keras", "latest.json"))]
    with Attempt(ordeal.run) as following:
        following.wait()
    ordeal.check_published(following)
    assert "stage.started" not in following.names()  # all steps were taken before
    [prefix] = {"/".join(name.split("/")[:2]) for name in left if name.startswith("runs/")}
    manifest = ordeal.output.read(f"{prefix}/manifest.json")
    assert manifest is not None
    sizes = {f"{prefix}/{name}": file["size"] for name, file in json.loads(manifest[0])["files"].items()}
    assert {name: sizes[name] for name in left if name in sizes} == {
        name: info.size for name, info in left.items() if name in sizes
    }


@pytest.mark.long
def test_outages_and_silence(
    flags: tuple[str, ...], undisturbed: str, proxy: Proxy, emulator: str, bucket: str, tmp_path: Path
) -> None:
    """Four runs side by side, since they mostly wait: each is what its function says."""
    faults: dict[str, Callable[[Seen], Fault | None]] = {}
    proxy.fault = lambda request: faults.get(request.bucket, lambda _: None)(request)
    ordeals = (outage_while_downloading, outage_while_training, silence, endless_outage)
    with ThreadPoolExecutor() as pool:
        running = []
        for number, undergo in enumerate(ordeals):
            name, folder = f"{bucket}-{number}", tmp_path / undergo.__name__
            folder.mkdir()
            emulators.create_bucket(emulator, name)
            output = storage.open_store(f"gs://{name}/out")
            run = [*flags[:-1], upload(flags[-1], name), "--output.uri", output.uri]
            running.append(pool.submit(undergo, Ordeal(run, name, output, undisturbed, faults, folder)))
        for one in running:
            one.result()


def test_store_that_comes_late(
    flags: tuple[str, ...], undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that starts after the job is waited for, with a line in the log every few seconds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    with Attempt([*flags[:-1], "gs://late/in", "--output.uri", "gs://late/out"]) as attempt:
        assert attempt.wait_for("storage.retried", 3)
        assert attempt.process.poll() is None
        waiting = [event for event in attempt.events if event["severity"] == "WARNING"]
        attempt.process.send_signal(signal.SIGSTOP)  # or it might look before the pictures are there
        with emulators.running(port) as late:
            emulators.create_bucket(late.url, "late")
            upload(flags[-1], "late")
            attempt.process.send_signal(signal.SIGCONT)
            assert 0 == attempt.wait(), attempt.events[-1]
            assert undisturbed == fetch_arrays("gs://late/out", tmp_path)

    assert {"storage.retried"} == {event["message"] for event in waiting}
    times = [dt.datetime.fromisoformat(event["time"]) for event in waiting]
    assert (
        min(later - earlier for earlier, later in itertools.pairwise(times)).total_seconds()
        > SECONDS_BETWEEN_LOG_LINES / 2
    )


# No permission


def test_no_permission(uploaded: tuple[str, ...], bucket: str, proxy: Proxy) -> None:
    """403 ends the run at once with exit 5, naming the permission and the resource."""
    proxy.fault = lambda _: reply(403, b'{"error": {"code": 403, "message": "no"}}')
    with Attempt([*uploaded, "--output.uri", f"gs://{bucket}/out"]) as attempt:
        assert 5 == attempt.wait()
    assert "storage.objects" in attempt.events[-1]["message"]
    assert bucket in attempt.events[-1]["message"]
