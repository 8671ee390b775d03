"""Memory does not grow with the number of pictures, but for at most 300 bytes for each.

    python benchmarks/memory.py                    600, 6,000 and 60,000 tiny pictures; some 10 minutes on two cores

Measured is the job's own process, not the one that checks the exported model, as the kernel accounts for it 50 times a
second. Private memory (RssAnon) is what only swap could take away. The resident set (VmHWM) has the mapped files
besides: program code, and whatever of the cache is mapped. Training has a large and constant part of its own, which
could hide what grows before it: so the peak before the first stage is reported as well.

The pictures differ in a comment only: 64 drawings, encoded once.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import harness
import numpy as np
from PIL import Image

DRAWINGS = 64
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """The most bytes that one process had."""

    before_training: float
    """Private, until stage 1 begins."""
    private: float
    """Private, to the end."""
    resident: float
    """Private and mapped."""


def main() -> None:
    """Run the job on more and more pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[600, 6_000, 60_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    peaks: dict[int, list[Peaks]] = {images: [] for images in options.images}
    for _ in range(options.rounds):
        for images in options.images:
            peaks[images].append(measure(images))
    fields = [field.name for field in dataclasses.fields(Peaks)]
    rows: list[list[object]] = [
        [f"{images:,} images, MiB", *(spread([getattr(one, field) / MIB for one in some]) for field in fields)]
        for images, some in peaks.items()
    ]
    for few, many in list(zip(options.images, options.images[1:], strict=False))[-1:]:
        pairs = list(zip(peaks[few], peaks[many], strict=True))
        growth = [
            spread([(getattr(after, field) - getattr(before, field)) / (many - few) for before, after in pairs])
            for field in fields
        ]
        rows.append([f"bytes an image, from {few:,} to {many:,} (reach: <= 300)", *growth])
    harness.record("Memory", ["", "private, before training", "private", "resident"], rows)


def spread(values: list[float]) -> str:
    """Return the median in whole numbers, with the spread where there is one."""
    found = harness.Spread.of(values)
    return f"{found.median:.0f}" + (f" ({found.low:.0f} to {found.high:.0f})" if found.count > 1 else "")


def measure(images: int) -> Peaks:
    """Draw the pictures, and run the job on them once."""
    with tempfile.TemporaryDirectory() as scratch:
        draw(Path(scratch, "in"), images)
        command = [sys.executable, "-m", "job", "run", "--input.uri", f"{scratch}/in", "--output.uri", f"{scratch}/out"]
        command += ["--cache.dir", f"{scratch}/cache"]
        command += ["--model.weights", "none", "--model.alpha", "0.35", "--model.image_size", "32"]
        for stage in ("feature_extraction", "fine_tuning"):
            command += [f"--{stage}.epochs", "1", f"--{stage}.batch_size", "256"]
        # note: the features of random weights are as small as 1e-11, and at the recipe's own rate nothing would move
        command += ["--feature_extraction.learning_rate", "1e-6", "--fine_tuning.learning_rate", "0.01"]
        started = time.perf_counter()
        peaks = watch(command)
    seconds = time.perf_counter() - started
    print(f"{images:,} images: {peaks.private / MIB:.0f} MiB private, {seconds:.0f} s", file=sys.stderr)
    return peaks


def draw(folder: Path, images: int) -> None:
    """Write so many different JPEG files, in a folder for each of two classes."""
    random = np.random.default_rng(1)
    drawings = []
    for number in range(DRAWINGS):
        noise = random.integers(0, 100, (32, 32, 3)) + 150 * (number % 2)
        encoded = io.BytesIO()
        Image.fromarray(noise.astype(np.uint8)).save(encoded, "JPEG")
        drawings.append(encoded.getvalue())
    for label in ("dark", "light"):
        (folder / label).mkdir(parents=True)
    for number in range(images):
        data, comment = drawings[number % DRAWINGS], f"{number:08}".encode()
        # A comment segment behind the start of the image: its marker, its length with these two bytes, its text.
        data = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        (folder / ("dark", "light")[number % 2] / f"{number:08}.jpg").write_bytes(data)


def watch(command: list[str]) -> Peaks:
    """Run one command to its end, and return its own peaks, without those of its children."""
    private: list[tuple[float, int]] = []
    resident = 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            kilobytes = dict(re.findall(r"^(VmHWM|RssAnon):\s+(\d+) kB$", status, re.MULTILINE))
            private.append((time.time(), int(kilobytes.get("RssAnon", 0)) * 1024))
            resident = max(resident, int(kilobytes.get("VmHWM", 0)) * 1024)
            time.sleep(0.02)
        log.seek(0)
        text = log.read().decode(errors="replace")
    assert process.returncode == 0, text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    trains = next(line["time"] for line in lines if line["message"] == "stage.started")
    until = dt.datetime.fromisoformat(trains).timestamp()
    return Peaks(
        before_training=max(size for when, size in private if when < until),
        private=max(size for _, size in private),
        resident=resident,
    )


if __name__ == "__main__":
    main()
