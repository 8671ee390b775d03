"""The time of ``finetune runs list`` for an output of 1,000 published runs of three objects each.

    python benchmarks/runs_list.py                 whole processes: a folder, and a bucket of the emulator
                                                   one reading: a store that answers each request after 50 ms

The emulator answers at once, so its time is the processor's, of client and emulator together; the store with a latency
shows what the requests of a real bucket cost beside that.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import harness

from job import storage
from job.observability.progress import Progress
from job.runs import documents
from job.runs.inventory import read_inventory
from job.storage import emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.storage import ObjectInfo, Store

LATENCY = 0.05
REACH = "<= 5 s"


def main() -> None:
    """Measure, and record the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, emulator.running() as running:
        fill(Path(folder), options.runs)
        emulator.create_bucket(running.url, "bench")
        upload(running.url, Path(folder))
        environment = {"STORAGE_EMULATOR_HOST": running.url}
        command = [sys.executable, "-m", "job", "runs", "list", "--json"]
        commands = {"a folder": [*command, folder], "a bucket of the emulator": [*command, "gs://bench/out"]}
        measured = harness.alternate(commands, rounds=options.rounds, environments=dict.fromkeys(commands, environment))
    rows = [
        [
            name,
            *(
                str(harness.Spread.of(values))
                for values in zip(*((run.seconds, run.cpu_seconds) for run in runs), strict=True)
            ),
        ]
        for name, runs in measured.items()
    ]
    slow = [latency(options.runs) for _ in range(options.rounds)]
    requests = slow[0].requests / options.runs
    title = f"a store with {LATENCY * 1000:.0f} ms, {requests:.3f} requests a run"
    rows.append([title, *(str(harness.Spread.of(getattr(one, name) for one in slow)) for name in ("seconds", "cpu"))])
    header = ["", "seconds", "of these on the processor", "reach"]
    harness.record(f"List of {options.runs:,} runs", header, [[*row, REACH] for row in rows])


def run_id(number: int) -> str:
    """Return the ID of a run."""
    return f"flowers-{number:010x}"


def success(number: int) -> bytes:
    """Return the _SUCCESS of a run."""
    published = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=number)
    overview = documents.Overview(
        run_id=run_id(number),
        published_at=published.isoformat(),
        gate_passed=number % 7 > 0,
        accuracy=0.9 + number % 100 / 1000,
        accuracy_interval=(0.85, 0.99),
        data_uri="gs://my-bucket/flowers",
        data_digest=f"{number:064x}",
        images={"train": 2400, "validation": 600, "test": 0},
        labels=5,
        kept_stage="fine_tuning",
        kept_epoch=number % 10 + 1,
        attempts=1,
        seconds=600.0,
        gpu_seconds=600.0,
        version="0.1.0",
    )
    return documents.encode({"manifest_sha256": f"{number:064x}", "overview": overview.document()})


def fill(folder: Path, runs: int) -> None:
    """Write the runs into a folder."""
    for number in range(runs):
        run = folder / "runs" / run_id(number)
        run.mkdir(parents=True)
        (run / "_SUCCESS").write_bytes(success(number))
        (run / "manifest.json").write_bytes(b"{}")
        (run / "config.json").write_bytes(b"{}")


def upload(url: str, folder: Path) -> None:
    """Copy the runs into the emulator."""
    os.environ["STORAGE_EMULATOR_HOST"] = url
    store = storage.open_store("gs://bench/out")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: store.write(path.relative_to(folder).as_posix(), path), paths))


class SlowStore:
    """Published runs that are made up as they are read, each request after a latency."""

    uri = "gs://bench/out"

    def __init__(self, runs: int) -> None:
        self.requests = 0
        self._runs = runs
        self._lock = threading.Lock()

    def folders(self, _: str) -> Sequence[str]:
        """Return all runs, in pages of 1,000."""
        for _page in range(0, self._runs, 1000):
            self._wait()
        return [run_id(number) for number in range(self._runs)]

    def read(self, name: str) -> tuple[bytes, ObjectInfo] | None:
        """Return _SUCCESS; nothing else exists."""
        self._wait()
        if not name.endswith("/_SUCCESS"):
            return None
        data = success(int(name.split("/")[1].rpartition("-")[2], 16))
        return data, storage.ObjectInfo(name, len(data), 0, 1)

    def _wait(self) -> None:
        with self._lock:
            self.requests += 1
        time.sleep(LATENCY)


class Reading(NamedTuple):
    """One reading: seconds by the clock and on the processor, and requests."""

    seconds: float
    cpu: float
    requests: int


def latency(runs: int) -> Reading:
    """Read all runs once."""
    store = SlowStore(runs)
    started, cpu = time.perf_counter(), time.process_time()
    found = read_inventory(cast("Store", store), Progress())
    assert runs == sum(run.state == "published" for run in found.runs)
    return Reading(time.perf_counter() - started, time.process_time() - cpu, store.requests)


if __name__ == "__main__":
    main()
