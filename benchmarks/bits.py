"""The same seed, settings and data end in the same bits, however the bytes came and whatever is kept on the disk.

    python benchmarks/bits.py

Compared is the sha256 over all arrays of model.keras: of two plain runs; of one whose decoded pixels do not fit into
the cache, so that every epoch decodes them again; and of one that reads a bucket through a proxy that holds back each
image for a random time, so that downloads end in another order. One with another seed must differ.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import harness
import numpy as np
from digests import arrays_sha256

from job import storage
from job.storage import emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "pictures"


def main() -> None:
    """Run all of them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--images", type=int, help="of each class on each side; all by default")
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--epochs", type=int, nargs=2, default=[2, 2])
    options = parser.parse_args()
    command = [sys.executable, "-m", "job", "run", "--model.weights", options.weights, "--model.alpha", "0.35"]
    command += ["--model.image_size", str(options.image_size), "--feature_extraction.epochs", str(options.epochs[0])]
    command += ["--fine_tuning.epochs", str(options.epochs[1])]
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as pictures, shuffling_bucket() as proxy:
        data, output = Path(scratch, "in"), Path(scratch, "out")
        names = copy(pictures, data, options.images)
        local = [*command, "--input.uri", str(data)]
        first = run([*local, "--output.uri", f"{output}/1"])
        second = run([*local, "--output.uri", f"{output}/2"])
        room = first.cache["encoded_bytes"] + first.cache["feature_bytes"]
        small = run([*local, "--output.uri", f"{output}/3", "--cache.max_bytes", str(room)])
        assert (first.cache["pixels_kept"], small.cache["pixels_kept"]) == (True, False)
        upload(data, names)
        proxy.ended.clear()
        bucket = run([*command, "--input.uri", f"gs://{BUCKET}", "--output.uri", f"{output}/4"], proxy.url)
        overtaken = count_overtaken(proxy.ended, names)
        assert overtaken > len(names) // 10, f"only {overtaken} of {len(names)} downloads ended out of turn"
        other = run([*local, "--output.uri", f"{output}/5", "--run.seed", "8"])
    rows: list[list[object]] = [
        ["a run", first.sha256[:16], ""],
        ["the same again", second.sha256[:16], equality(second, first)],
        [f"pixels not kept (cache.max_bytes {room:,})", small.sha256[:16], equality(small, first)],
        [
            f"from a bucket: {overtaken} of {len(names)} downloads ended after one listed behind it",
            bucket.sha256[:16],
            equality(bucket, first),
        ],
        ["another seed, which must differ", other.sha256[:16], equality(other, first)],
    ]
    harness.record("The same bits", ["", "sha256 of all arrays", "to the first"], rows)
    assert {first.sha256} == {run.sha256 for run in (second, small, bucket)} != {other.sha256}


@dataclass(frozen=True)
class Result:
    """What a run ended in.

    Attributes:
        sha256: over all arrays of model.keras.
        cache: what the log says of the cache.
    """

    sha256: str
    cache: dict[str, Any]


def run(command: list[str], endpoint: str = "") -> Result:
    """Run the job once, with its bucket at an emulator's endpoint if it has one."""
    done = harness.run(command, environment={"STORAGE_EMULATOR_HOST": endpoint} if endpoint else {})
    print(f"{done.seconds:.1f} s: {' '.join(command[command.index('--input.uri') :])}", file=sys.stderr)
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    [cache] = [line for line in lines if line["message"] == "cache.opened"]
    [folder] = Path(command[command.index("--output.uri") + 1], "runs").iterdir()
    return Result(arrays_sha256(folder / "model/model.keras"), cache)


def equality(one: Result, other: Result) -> str:
    """Return it in a word."""
    return "equal" if one.sha256 == other.sha256 else "differs"


def copy(source: Path, target: Path, images: int | None) -> list[str]:
    """Copy pictures, the first so many of each folder; return their names, sorted."""
    names = []
    for folder in sorted(path for path in source.glob("*/*") if path.is_dir()):
        for path in sorted(folder.iterdir())[:images]:
            names.append(path.relative_to(source).as_posix())
            (target / names[-1]).parent.mkdir(parents=True, exist_ok=True)
            (target / names[-1]).write_bytes(path.read_bytes())
    return sorted(names)


def count_overtaken(ended: list[str], names: list[str]) -> int:
    """Return how many downloads ended after one that is listed behind them."""
    place = {name: number for number, name in enumerate(names)}
    order = np.array([place[name] for name in ended if name in place])
    assert len(order) == len(names), f"{len(order)} downloads of {len(names)} images"
    return int(np.count_nonzero(order < np.maximum.accumulate(order)))


def upload(folder: Path, names: list[str]) -> None:
    """Put the pictures into the bucket, under the same names."""
    store = storage.open_store(f"gs://{BUCKET}")
    for name in names:
        store.write(name, folder / name)


@contextlib.contextmanager
def shuffling_bucket() -> Iterator[Shuffler]:
    """Run an emulator with an empty bucket, and a proxy before it; this process uses the emulator itself."""
    with emulator.running() as running, Shuffler(running.url) as proxy:
        emulator.create_bucket(running.url, BUCKET)
        os.environ["STORAGE_EMULATOR_HOST"] = running.url
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


class Shuffler(ThreadingHTTPServer):
    """A proxy that holds back each image for a random time.

    Attributes:
        url: its own address.
        ended: the images in the order in which their answers left.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = urlsplit(target).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.ended: list[str] = []
        self.random = random.Random()  # noqa: S311 (it keeps no secret)


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Shuffler

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        with contextlib.closing(http.client.HTTPConnection(self.server.target, timeout=30)) as connection:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        image = re.match(rf"/{BUCKET}/(.+)", unquote(urlsplit(self.path).path))  # what reads in bulk asks like this
        if image:
            time.sleep(self.server.random.uniform(0, 0.03))
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if image:
            self.server.ended.append(image[1])

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _forward  # noqa: N815 (http.server's names)

    def log_message(self, *_: object) -> None:
        """Write no log."""


if __name__ == "__main__":
    main()
