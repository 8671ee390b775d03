"""What judging an input costs: listing, headers, folders, equal and near pictures; processor time of this process.

    python benchmarks/validate.py

The objects are spread over buckets of at most 1,000, since the emulator is quadratic in a bucket
(fake-gcs-server#2357). Large objects are read by their first 64 KiB, small ones whole.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import harness
import numpy as np

from job import storage
from job.config import environment
from job.data import contradictions, duplicates
from job.data.folders import Layout
from job.data.manifest import Manifest
from job.data.survey import survey
from job.observability.progress import Progress
from job.storage import emulator

BUCKET = 1000


def main() -> None:
    """Fill the buckets and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, nargs=2, default=(22_000, 200_000), help="of a small and a large image")
    harness.add_inputs(parser)
    options = parser.parse_args()
    rows: list[list[object]] = []
    with harness.pictures(options) as pictures:
        image = next(path for path in sorted(pictures.rglob("*")) if path.is_file()).read_bytes()
    for size in options.bytes:
        listed, headers = measure(
            image.ljust(size, b"\0"), options.images if size < 64 * 1024 else options.images // 10
        )
        reaches = ("<= 0.1", "<= 0.5") if size < 64 * 1024 else ("", "")
        rows += [
            [f"listing, images of {size:,} bytes: ms an object", harness.Spread.of(listed), reaches[0]],
            [f"headers, images of {size:,} bytes: ms an image", harness.Spread.of(headers), reaches[1]],
        ]
    names = [f"class{number % 100:03}/image_{number:07}.jpg" for number in range(1_000_000)]
    rows.append(["shape of the folders of 1,000,000 images: s", f"{cpu(lambda: Layout.detect(names)):.2f}", ""])
    million = manifest(names)
    rows.append(["equal bytes among 1,000,000 images: s", f"{cpu(lambda: contradictions.find(million)):.2f}", ""])
    for count, reach in ((100_000, "<= 1"), (300_000, "<= 5")):
        hashes, planted = planted_hashes(count)
        found: list[np.ndarray] = []
        seconds = cpu(lambda hashes=hashes, found=found: found.extend(duplicates.near_pairs(hashes, 6)))
        missed = planted - {(one, other) for one, other, _ in np.concatenate(found).tolist()}
        rows.append(
            [f"near pairs among {count:,} hashes, {len(missed)} of {len(planted):,} missed: s", f"{seconds:.2f}", reach]
        )
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    thousand = cpu(lambda: [duplicates.perceptual_hash(noise) for _ in range(1000)])
    rows.append(["hash of a picture of 224 px: ms", f"{thousand:.3f}", "<= 0.3"])
    harness.record("Judging an input", ["", "processor time", "reach"], rows)


def measure(image: bytes, count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds an object of listing each bucket, and of reading its headers."""
    listed, headers = [], []
    with emulator.running() as emulated:
        environment.set_default("STORAGE_EMULATOR_HOST", emulated.url)
        os.environ["STORAGE_EMULATOR_HOST"] = emulated.url
        for number in range(count // BUCKET):
            bucket = f"gs://images-{number}"
            emulator.create_bucket(emulated.url, bucket.removeprefix("gs://"))
            store = storage.open_store(bucket)
            for position in range(BUCKET):
                store.write(f"c{position % 10}/{position:05}.jpg", image)
            found: list[storage.ObjectInfo] = []
            listed.append(1000 * cpu(lambda store=store, found=found: found.extend(store.list())) / BUCKET)
            rows = manifest([info.name for info in found], bucket, found)
            headers.append(1000 * cpu(lambda rows=rows: check(rows)) / BUCKET)
            print(f"{bucket}: {listed[-1]:.3f} ms, {headers[-1]:.3f} ms", file=sys.stderr)
    return listed, headers


def planted_hashes(count: int) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Return random hashes, and the indices of a thousand pairs that differ in 1 to 6 bits."""
    random = np.random.default_rng(count)
    hashes = np.unique(random.integers(1, 2**63, count, np.uint64))
    chosen = random.choice(len(hashes), 1000, replace=False).tolist()
    near = []
    for index in chosen:
        flips = random.choice(64, random.integers(1, 7), replace=False).tolist()
        near.append(int(hashes[index]) ^ sum(1 << flip for flip in flips))
    pairs = {(index, len(hashes) + number) for number, index in enumerate(chosen)}
    return np.concatenate([hashes, np.array(near, np.uint64)]), pairs


def check(rows: Manifest) -> None:
    """Survey images that are all usable."""
    assert survey(rows, storage.open_store, max_pixels=10**9, progress=Progress([])).usable.all()


def manifest(names: list[str], root: str = "gs://images", found: list[storage.ObjectInfo] | None = None) -> Manifest:
    """Return a manifest of names in ten classes, each image with bytes of its own unless they are given."""
    count = len(names)
    numbers = np.arange(count)
    return Manifest(
        roots=(root,),
        labels=tuple(f"c{number}" for number in range(10)),
        names=names,
        root=np.zeros(count, np.uint16),
        label=(numbers % 10).astype(np.int32),
        split=np.zeros(count, np.uint8),
        size=np.array([info.size for info in found], np.int64) if found else numbers.astype(np.int64),
        crc32c=np.array([info.crc32c for info in found], np.uint32) if found else numbers.astype(np.uint32),
        generation=np.array([info.generation for info in found], np.int64) if found else numbers.astype(np.int64),
        gzip=np.zeros(count, np.bool_),
    )


def cpu(action: object) -> float:
    """Return the processor time of this process that an action takes, in seconds."""
    assert callable(action)
    started = time.process_time()
    action()
    return time.process_time() - started


if __name__ == "__main__":
    main()
