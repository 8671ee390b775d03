"""The memory that an image takes from the listing to the search for duplicates, in a process that does nothing else.

    python benchmarks/listing_memory.py            1,000,000 images in folders, and in a table with groups

The store is made up, so that nothing but the job's own memory counts. Measured is what the kernel counts as private
(RssAnon), at each step and at its peak, above what the process had before it listed the first image. The names have 33
characters, and every image its own perceptual hash, as after the pass over the data.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import harness
import numpy as np

from job.config.settings import InputSettings
from job.data import contradictions
from job.data.listing import read_listing
from job.data.prepare import prepare
from job.observability.progress import Progress
from job.runs.data import Data
from job.storage import ObjectInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from job import storage
    from job.data.quarantine import Quarantined

FORMS: dict[str, dict[str, Any]] = {"folders": {}, "table": {"group_column": "patient"}}
BUCKET = "gs://bucket"


def main() -> None:
    """Measure each form in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--form", choices=FORMS, help="measure this one here, and print it as JSON")
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.form, options.images)))
        return
    rows: list[list[object]] = []
    for form in FORMS:
        command = [sys.executable, __file__, "--form", form, "--images", str(options.images)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rows += [[f"{form}, {step}", f"{count:.0f}", "<= 300"] for step, count in found.items()]
    harness.record(
        "Memory of the list of images", [f"bytes an image, of {options.images:,}", "measured", "reach"], rows
    )


class Store:
    """Objects that are made up as they are listed."""

    def __init__(self, uri: str, images: int) -> None:
        self.uri = uri
        self._images = images

    def list(self, *, found_folder: Callable[[str], object]) -> Iterator[ObjectInfo]:  # noqa: ARG002 (of the protocol)
        """Yield every image."""
        for number in range(self._images):
            yield info(name(number), number)

    def stat(self, _: str) -> None:
        """Nothing but the table is a file, and it is read."""

    def read(self, _: str) -> tuple[bytes, ObjectInfo]:
        """Return the table."""
        return table(self._images), info("table.csv", 0)

    def stat_many(self, names: Sequence[str]) -> Iterator[tuple[int, ObjectInfo]]:
        """Yield every named object."""
        for index, found in enumerate(names):
            yield index, info(found, int(found[-11:-4]))


def name(number: int) -> str:
    """Return the name of an image: a hundred classes."""
    return f"class{number % 100:03}/photograph-{number:09}.jpg"


def table(images: int) -> bytes:
    """Return the table of all images, of which each patient has nine."""
    data = bytearray(b"image,label,patient\n")
    for number in range(images):
        data += f"{name(number)},{name(number)[:8]},patient-{number // 9:06}\n".encode()
    return bytes(data)


def info(object_name: str, number: int) -> ObjectInfo:
    """Return what the store lists of it."""
    checksum = number * 2_654_435_761 % 2**32  # a permutation: no two images are equal
    return ObjectInfo(name=object_name, size=20_000 + number % 977, crc32c=checksum, generation=10**15 + number)


def measure(form: str, images: int) -> dict[str, float]:
    """Return step -> bytes an image, above those of the process before the listing; the peak last."""
    uri = f"{BUCKET}/table.csv" if form == "table" else BUCKET
    settings = InputSettings(uri=uri, layout="classes", **FORMS[form])

    def open_store(root: str) -> storage.Store:
        return cast("storage.Store", Store(root, images))

    with Watch(images) as watch:
        listed, quarantined = read_listing(settings, open_store)
        watch.step("listed")
        contradictions.check(listed, settled=True)
        arrays = Data(listed=listed, quarantined=quarantined).pack()
        del arrays
        watch.step("saved")
        hashes = np.random.default_rng(1).integers(1, 2**63, images).astype(np.uint64)
        prepared = prepare(listed, quarantined, Passed(images), settings, Progress(), hashes=hashes)
        watch.step("split, and searched for duplicates")
        assert len(prepared.usable) == images == len(hashes)
    return watch.found


class Passed:
    """A pass that found every image usable."""

    def __init__(self, images: int) -> None:
        self.usable = np.ones(images, bool)
        self.damaged = np.zeros(images, bool)
        self.quarantined: list[Quarantined] = []


class Watch:
    """Reads the private memory of this process 100 times a second."""

    def __init__(self, images: int) -> None:
        self.found: dict[str, float] = {}
        self._images = images
        self._peak = self._before = private()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def step(self, name: str) -> None:
        """Record what is held now, and the peak since the last step."""
        self.found[name] = (private() - self._before) / self._images
        self.found[f"{name}, peak"] = (self._peak - self._before) / self._images
        self._peak = 0

    def _run(self) -> None:
        while not self._done.wait(0.01):
            self._peak = max(self._peak, private())


def private() -> int:
    """Return the private memory of this process in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024  # type: ignore[index]


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
