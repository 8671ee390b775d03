"""Reading images from buckets: the job's own way against google.cloud.storage.transfer_manager.

    python benchmarks/ingest.py                    2,000 objects of 22 kB in fake-gcs-server; some minutes on two cores
    python benchmarks/ingest.py --many 50000       and so many from a stub of a store: rate and memory stay flat

Each reader is a process that does nothing else, measured after its imports, a listing, and the creation of its clients,
which takes the job about 25 ms a bucket. Both verify the checksum of each object and leave its bytes on the disk: the
job in its cache, transfer_manager in a file an object, with 8 threads or 8 processes, whichever are faster.
fake-gcs-server searches a bucket from its beginning for each request, so the time that it takes grows with the bucket:
the objects are in 8 buckets of 250, and once more in one bucket of 2,000, for comparison. Server and reader share this
machine: where the job keeps all its processors busy with both, these are the limit, and where fewer are busy, other
processes had them, or the reader waits for its own interpreter lock. The stub answers the same requests from a few
stored responses, and takes as little time as a server in Python can.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import numpy as np

from job import storage
from job.config.settings import CacheSettings, InputSettings, StorageSettings
from job.data.cache import Cache
from job.data.listing import read_listing
from job.data.manifest import Manifest, ManifestBuilder
from job.data.sources import Sources
from job.storage import ObjectInfo, emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BYTES = 22_000
BUCKETS = 8
BODIES = 64
STUB_BUCKET = "stub"
NUMBER = re.compile(rb"(\d{6})(?:\.|%2E)jpg")  # obstore encodes the dot
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
THREADS, PROCESSES, JOB = "transfer_manager, 8 threads", "transfer_manager, 8 processes", "the job"
SPREAD, ONE, STUB = f"{BUCKETS} buckets", "one bucket", "stub"


def main() -> None:
    """Fill the stores, and read them in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=0, help="read so many objects from the stub as well")
    parser.add_argument("--reader", choices=[THREADS, PROCESSES, JOB], help="read here, and print what it took")
    parser.add_argument("--store", choices=[SPREAD, ONE, STUB], default=SPREAD)
    parser.add_argument("--serve", action="store_true", help="be the stub")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    elif options.reader:
        print(json.dumps(read(options.reader, options.store, options.objects)))
    else:
        compare(options.objects, options.rounds, options.many)


def compare(objects: int, rounds: int, many: int) -> None:
    """Measure every reader on every store, and record it."""
    rows: list[list[object]] = []
    rates: dict[str, harness.Spread] = {}
    with emulator.running() as server, stub() as (stub_pid, stub_url):
        fill(server.url, objects)
        stores = {SPREAD: (server.pid, server.url), ONE: (server.pid, server.url), STUB: (stub_pid, stub_url)}
        for store, (pid, url) in stores.items():
            found = alternate(store, pid, url, objects, rounds if store == SPREAD else min(rounds, 3))
            peer = max((THREADS, PROCESSES), key=lambda name: median(found.get(name, ()), "rate"))
            ratio = harness.ratio([one["rate"] for one in found[JOB]], [one["rate"] for one in found[peer]])
            rates[store] = ratio
            where = f"{objects:,} objects, {store}" + (", in fake-gcs-server" if store != STUB else " of a store")
            for name, runs in found.items():
                rows.append([f"{where}: {name}", *columns(runs), ""])
            reach = " (reach: >= 6x, <= 0.3 ms)" if store == SPREAD else ""
            rows.append([f"{where}: the job against {peer}{reach}", *[""] * 5, f"{ratio}x"])
        if many:
            runs = [take(JOB, STUB, *stores[STUB], many)]
            rows.append([f"{many:,} objects, stub of a store: the job", *columns(runs), ""])
    header = ["", "objects/s", "reader's processor time, ms an object", "server's"]
    header += ["processors busy with both", "reader's memory, MiB", "ratio"]
    harness.record("Reading images from buckets", header, rows)
    print(f"the job reads {rates[SPREAD].median:.1f}x")


def alternate(store: str, pid: int, url: str, objects: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Have each reader read a store once a round; return what each round took."""
    found: dict[str, list[dict[str, float]]] = {THREADS: [], PROCESSES: [], JOB: []}
    for number in range(rounds):
        for name, runs in found.items():
            if name == PROCESSES and store != SPREAD:
                continue
            runs.append(take(name, store, pid, url, objects))
            print(f"{store}, round {number + 1}: {name}: {runs[-1]['rate']:.0f} objects/s", file=sys.stderr)
    return {name: runs for name, runs in found.items() if runs}


def median(runs: Sequence[dict[str, float]], field: str) -> float:
    """Return the median of a field; 0 without runs."""
    return harness.Spread.of(run[field] for run in runs).median if runs else 0.0


def columns(runs: Sequence[dict[str, float]]) -> list[object]:
    """Return what runs took, as cells."""
    return [harness.Spread.of(run[field] for run in runs) for field in ("rate", "cpu", "server_cpu", "busy", "memory")]


def take(reader: str, store: str, pid: int, url: str, objects: int) -> dict[str, float]:
    """Read a store in a process of its own; return what it took, and the server besides."""
    before = cpu_of(pid)
    command = [sys.executable, __file__, "--reader", reader, "--store", store, "--objects", str(objects)]
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": url}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    server_cpu = (cpu_of(pid) - before) / objects * 1000
    return found | {"server_cpu": server_cpu, "busy": found["rate"] * (found["cpu"] + server_cpu) / 1000}


def cpu_of(pid: int) -> float:
    """Return the processor time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the objects ---


def name(number: int) -> str:
    """Return the name of an object."""
    return f"class{number % 10}-{number:06}.jpg"


def body(number: int) -> bytes:
    """Return the bytes of an object: of one of 64."""
    return np.random.default_rng(number % BODIES).bytes(BYTES)


def bucket_of(number: int, store: str) -> str:
    """Return the bucket of an object."""
    return {SPREAD: f"ingest-{number % BUCKETS}", ONE: "ingest-all", STUB: STUB_BUCKET}[store]


def fill(url: str, objects: int) -> None:
    """Write the objects to fake-gcs-server, once over some buckets, and once into one."""
    os.environ["STORAGE_EMULATOR_HOST"] = url
    for store in (SPREAD, ONE):
        stores = {}
        for number in range(min(BUCKETS, objects)):
            bucket = bucket_of(number, store)
            if bucket not in stores:
                emulator.create_bucket(url, bucket)
                stores[bucket] = storage.open_store(f"gs://{bucket}")

        def write(number: int, store: str = store, stores: dict[str, storage.Store] = stores) -> None:
            stores[bucket_of(number, store)].write(name(number), body(number))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(objects)))


# --- the readers, each in a process of its own ---


def read(reader: str, store: str, objects: int) -> dict[str, float]:
    """Read all objects; return objects a second, processor time an object in ms, and the memory that it took in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        start = prepare_job(store, objects, folder) if reader == JOB else prepare_peer(reader, store, objects, folder)
        before, cpu, started = resident(), own_cpu(), time.perf_counter()
        start()
        seconds, cpu = time.perf_counter() - started, own_cpu() - cpu
        memory = peak() - before
    return {"rate": objects / seconds, "cpu": cpu / objects * 1000, "memory": memory / 2**20}


def own_cpu() -> float:
    """Return the processor time of this process and of its children that ended, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def resident() -> int:
    """Return the resident memory of this process in bytes, and make it the peak from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most resident memory of this process in bytes."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def prepare_job(store: str, objects: int, folder: str) -> Callable[[], None]:
    """List the objects as a run does, and return what reads them into a cache."""
    open_store = storage.opener(StorageSettings())
    listed = list_stub(objects) if store == STUB else list_table(store, objects, folder, open_store)
    assert objects == len(listed)
    sources = Sources(listed, open_store)
    for root in range(len(listed.roots)):
        sources.store(root)

    def start() -> None:
        settings = CacheSettings(dir=folder)
        size = int(listed.size.sum())
        parts: Any = {"encoded": {}, "features": {}, "pixels": {}}
        sizes = {"images": objects, "encoded_bytes": size, "image_size": 0, "feature_size": 0}
        with Cache(settings, run_id="ingest", made_from=parts, **sizes) as cache:
            for row, data in sources.read(np.arange(objects)):
                assert isinstance(data, bytes)
                cache.put_encoded(row, data)
            assert cache.has_encoded(np.arange(objects)).all()

    return start


def list_table(store: str, objects: int, folder: str, open_store: storage.OpenStore) -> Manifest:
    """Look up the objects that a table names."""
    table = Path(folder, "table.csv")
    lines = [f"gs://{bucket_of(number, store)}/{name(number)},class{number % 10}" for number in range(objects)]
    table.write_text("image,label\n" + "\n".join(lines) + "\n")
    return read_listing(InputSettings(uri=str(table)), open_store)[0]


def list_stub(objects: int) -> Manifest:
    """Return the stub's objects as if listed: it has no listing."""
    builder = ManifestBuilder()
    builder.roots.append(f"gs://{STUB_BUCKET}")
    checksums = [storage.crc32c(body(number)) for number in range(BODIES)]
    for number in range(objects):
        row = builder.add(name(number), root=0, label=builder.label_number(f"class{number % 10}"))
        builder.set_info(row, ObjectInfo(name(number), BYTES, checksums[number % BODIES], 1))
    return builder.build()


def prepare_peer(reader: str, store: str, objects: int, folder: str) -> Callable[[], None]:
    """Return what has transfer_manager write every object to a file.

    `download_many` is what `download_many_to_path` calls; that one takes a single bucket.
    """
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.storage import Client, transfer_manager

    os.environ["DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA"] = "true"  # as the job does: a request that it spares
    endpoint = os.environ["STORAGE_EMULATOR_HOST"]
    client = Client(project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint})
    buckets = {bucket_of(number, store): client.bucket(bucket_of(number, store)) for number in range(objects)}
    pairs = [
        (buckets[bucket_of(number, store)].blob(name(number)), f"{folder}/{name(number)}") for number in range(objects)
    ]

    def start() -> None:
        transfer_manager.download_many(
            pairs,
            max_workers=8,
            worker_type=transfer_manager.THREAD if reader == THREADS else transfer_manager.PROCESS,
            raise_exception=True,
            download_kwargs={"checksum": "crc32c"},
        )
        assert objects == sum(path.stat().st_size == BYTES for path in Path(folder).iterdir())

    return start


# --- the stub ---


class stub:  # noqa: N801  # used as a function
    """Run the stub in a process of its own: a context manager that returns its process id and URL."""

    def __enter__(self) -> tuple[int, str]:
        self._process = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        return self._process.pid, f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


class Answers(asyncio.Protocol):
    """Answers each GET by the number in its name; one that is a part of a request is not expected."""

    responses: tuple[bytes, ...] = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request."""
        number = NUMBER.search(data)
        self._transport.write(self.responses[int(number[1]) % BODIES] if number else NOT_FOUND)


async def serve() -> None:
    """Answer on a free port, which is printed, until this process is ended."""
    Answers.responses = tuple(map(response, range(BODIES)))
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def response(number: int) -> bytes:
    """Return the response for an object, as both libraries need it."""
    data = body(number)
    checksum = base64.b64encode(storage.crc32c(data).to_bytes(4, "big")).decode()
    lines = [
        "HTTP/1.1 200 OK",
        f"Content-Length: {len(data)}",
        "Content-Type: image/jpeg",
        f'ETag: "{number}"',
        "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
        "x-goog-generation: 1",
        f"x-goog-hash: crc32c={checksum}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data


if __name__ == "__main__":
    main()
