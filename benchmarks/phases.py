"""What each phase of a run costs for an image, from the listing to publication; docs/scaling.md computes with it.

    python benchmarks/phases.py                  480 + 120 pictures from an emulated bucket; some 3 minutes on 2 cores

Three parts. One whole run at 224 px, from and to the bucket, gives its own times: an epoch of stage 1, a step of stage
2, validation, and what does not depend on the number of images. Listing, downloading, decoding and the feature pass
overlap in a run, so each is measured alone. What is done once for an image without its pixels is measured on a list of
images that is made up, since a small run cannot show it.

Memory for an image is measured by listing_memory.py.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import folding
import harness
import listing_memory
import numpy as np

from job import storage
from job.config.load import load_settings
from job.config.settings import InputSettings
from job.data.labels import VALIDATION
from job.data.listing import read_listing
from job.data.prepare import prepare
from job.observability import log
from job.observability.progress import Progress
from job.runs.data import Data
from job.runtime import device
from job.storage import emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from job.data.prepare import Prepared
    from job.model.classifier import Classifier

BUCKET = "gs://phases"
ROUNDS = 5
RANGE = 32
TITLE = "Phases: the cost of an image"
FIXED = ("import", "model", "evaluate", "export", "verify", "upload", "report")
"""Parts of a run that are mostly compilation, processes and files: of few images, the time does not depend on them."""

Row = list[object]


class Timed(NamedTuple):
    """One measurement.

    Attributes:
        wall: seconds.
        cpu: seconds of this process, on all its threads.
    """

    wall: float
    cpu: float


def main() -> None:
    """Measure every phase, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--epochs", type=int, nargs=2, default=[5, 3])
    parser.add_argument("--listed", type=int, default=200_000, help="images of the list that is made up")
    options = parser.parse_args()
    flags = ["--model.weights", options.weights, "--model.image_size", str(options.image_size)]
    with emulator.running() as emulated, harness.pictures(options) as pictures:
        os.environ["STORAGE_EMULATOR_HOST"] = emulated.url
        emulator.create_bucket(emulated.url, BUCKET.removeprefix("gs://"))
        store, images = (
            storage.open_store(f"{BUCKET}/in"),
            sorted(path for path in pictures.rglob("*") if path.is_file()),
        )
        for path in images:
            store.write(str(path.relative_to(pictures)), path.read_bytes())
        rows = run(flags, options.epochs)
        settings = load_settings(flags, {}).settings
        device.prepare()
        threads = device.configure(settings).threads
        rows[1:1] = read(store, options.image_size)
    classifier, _ = folding.create(settings)
    rows[4:4] = [features(classifier, options.image_size)]
    rows += [*without_pixels(options.listed), *sizes(classifier)]
    title = f"{len(images)} images of {options.image_size} px, alpha 1.0, {threads} threads"
    harness.record(TITLE, [title, "measured", "of these on the processor"], rows)


def run(flags: list[str], epochs: list[int]) -> list[Row]:
    """Return what a whole run from and to the bucket measures of itself."""
    command = [
        sys.executable,
        "-m",
        "job",
        "run",
        "--input.uri",
        f"{BUCKET}/in",
        "--output.uri",
        f"{BUCKET}/out",
        *flags,
    ]
    command += ["--feature_extraction.epochs", str(epochs[0]), "--fine_tuning.epochs", str(epochs[1])]
    done = harness.run(command)
    print(f"run: {done.seconds:.0f} s", file=sys.stderr)
    store = storage.open_store(f"{BUCKET}/out")
    files = {info.name.partition("/")[2].partition("/")[2]: info.name for info in store.list()}
    metrics, history = (_read(store, files[f"metrics/{name}"]).decode() for name in ("metrics.json", "history.csv"))
    return run_rows(json.loads(metrics), list(csv.DictReader(history.splitlines())), done.seconds)


def run_rows(metrics: dict[str, Any], history: list[dict[str, str]], process: float) -> list[Row]:
    """Return the rows of a run.

    Args:
        metrics: its metrics.json.
        history: the rows of its history.csv.
        process: seconds from its start to its end.
    """
    timing, images = metrics["timing"], metrics["data"]["labels"].values()
    train, validation = (sum(counts[name] for counts in images) for name in ("train", "validation"))
    rows: list[Row] = [["the pass over the data (download, decode, features at once): ms an image"]]
    rows[0] += [f"{1000 * timing['ingest'] / (train + validation):.3g}", ""]
    for stage, name in (("feature_extraction", "an epoch of stage 1"), ("fine_tuning", "an epoch of stage 2")):
        found = [row for row in history if row["stage"] == stage]
        found = found[1:] or found  # note: the first epoch compiles
        step = [1000 / float(row["images_per_second"]) for row in found]
        scored = [
            1000 * (float(row["seconds"]) - train / float(row["images_per_second"])) / validation for row in found
        ]
        rows.append([f"{name}, training: ms an image", harness.Spread.of(step), ""])
        rows.append([f"{name}, validation: ms an image", harness.Spread.of(scored), ""])
    epochs = sum(row["stage"] == "feature_extraction" for row in history)
    searched = 1000 * timing["label_errors"] / train / epochs
    rows.append(["the search for label errors: ms an image and epoch of stage 1", f"{searched:.3g}", ""])
    rows += [[f"once for a run, {part}: s", f"{timing[part]:.3g}", ""] for part in FIXED]
    rest = process - sum(timing[part] for part in timing if part != "total")
    return [*rows, ["once for a run, publication and everything else: s", f"{rest:.3g}", ""]]


def read(store: storage.Store, image_size: int) -> list[Row]:
    """Return the rows of listing, downloading and decoding the images of a bucket, each alone."""
    from job.data import decode, image_header
    from job.data.duplicates import perceptual_hash

    settings = InputSettings(uri=f"{BUCKET}/in")
    listed, _ = read_listing(settings, storage.open_store)
    objects = listed.objects(np.arange(len(listed)))
    data = [encoded for _, encoded in store.read_many(objects) if isinstance(encoded, bytes)]
    size = sum(map(len, data)) / len(data)

    def decode_all() -> None:
        for encoded in data:
            header = image_header.read_header(encoded, max_pixels=settings.max_pixels)
            perceptual_hash(decode.decode_and_check(encoded, header, image_size, refuse_damaged=False).pixels)

    with decode.quiet():
        return [
            row("listing the bucket: ms an image", len(data), lambda: read_listing(settings, storage.open_store)),
            row(f"downloading {size:,.0f} bytes: ms an image", len(data), lambda: list(store.read_many(objects))),
            row("decoding, checking and hashing, one thread: ms an image", len(data), decode_all),
        ]


def features(classifier: Classifier, image_size: int) -> Row:
    """Return the row of the feature pass alone."""
    import tensorflow as tf

    spec = tf.TensorSpec((RANGE, image_size, image_size, 3), tf.uint8)
    forward = tf.function(classifier.features, input_signature=[spec], autograph=False)
    pixels = np.random.default_rng(1).integers(0, 256, spec.shape, np.uint8)
    forward(pixels)
    return row("features, the forward pass of the backbone: ms an image", RANGE, lambda: forward(pixels))


def without_pixels(images: int) -> list[Row]:
    """Return the rows of what is done for each image of a list that is made up, and the bytes it takes."""
    settings = InputSettings(uri=listing_memory.BUCKET, layout="classes")

    def open_store(root: str) -> storage.Store:
        return cast("storage.Store", listing_memory.Store(root, images))

    (listed, quarantined), listing = timed(lambda: read_listing(settings, open_store))
    data = Data(listed=listed, quarantined=quarantined)
    packed, packing = timed(lambda: pack(data.pack()))
    hashes = np.random.default_rng(1).integers(1, 2**63, images).astype(np.uint64)
    passed = listing_memory.Passed(images)
    prepared, preparing = timed(lambda: prepare(listed, quarantined, passed, settings, Progress(), hashes=hashes))
    lines, writing = timed(lambda: sum(len(line) for line in json_lines(prepared)))
    held_out = int((prepared.splits == VALIDATION).sum())
    _, scoring = timed(lambda: score(prepared))
    whole = pack(Data(listed=listed, quarantined=quarantined, usable=passed.usable, hashes=hashes).pack())
    return [
        _row(f"the list of {images:,} images, without the store: ms an image", listing, images),
        _row("… saved: ms an image", packing, images),
        _row("… split, searched for duplicates: ms an image", preparing, images),
        _row("… published as manifest and split: ms an image", writing, images),
        _row(f"metrics of {held_out:,} held-out images of 100 classes: ms an image", scoring, held_out),
        ["the saved list, one object: bytes an image, as listed", f"{packed / images:.0f}", ""],
        ["the saved list, one object: bytes an image, after the pass", f"{whole / images:.0f}", ""],
        ["data/manifest.jsonl and split.jsonl: bytes an image", f"{lines / images:.0f}", ""],
    ]


def pack(arrays: dict[str, NDArray[Any]]) -> int:
    """Return the bytes of arrays as a checkpoint stores them."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.tell()


def json_lines(prepared: Prepared) -> Iterable[str]:
    """Yield the lines of the documents that have one for each image, as `Run.write_documents` makes them."""
    for name, documents in prepared.documents():
        if name in {"data/manifest.jsonl", "data/split.jsonl"}:
            plain = (log.plain(document) for document in documents)
            yield from (json.dumps(line, ensure_ascii=False) + "\n" for line in plain)


def score(prepared: Prepared) -> None:
    """Compute the metrics of a split, with answers that are made up."""
    from job.evaluation import splits

    names, labels = prepared.usable.labels, prepared.usable.label[prepared.splits == VALIDATION]
    chances = np.random.default_rng(1).random((len(labels), len(names)), np.float32)
    splits.split_document(chances / chances.sum(axis=1, keepdims=True), labels, names, 7, split="validation")


def sizes(classifier: Classifier) -> list[Row]:
    """Return the rows of the bytes of gradients and of a checkpoint within an epoch of stage 2."""
    classifier.set_trainable("fine_tuning")
    gradients = sum(4 * int(np.prod(variable.shape)) for variable in classifier.model.trainable_variables)
    weights = sum(array.nbytes for array in classifier.state().values())
    moments = 2 * gradients
    return [
        ["gradients of a step of stage 2: MB", f"{gradients / 1e6:.1f}", ""],
        ["a checkpoint of stage 2 between epochs: MB", f"{(2 * weights + moments) / 1e6:.0f}", ""],
        ["a checkpoint of stage 2 within an epoch: MB", f"{(3 * weights + 2 * moments) / 1e6:.0f}", ""],
    ]


def row(name: str, images: int, action: Callable[[], object]) -> Row:
    """Return the row of an action that is repeated."""
    times = [timed(action)[1] for _ in range(ROUNDS)]
    wall, cpu = (harness.Spread.of(1000 * seconds / images for seconds in part) for part in zip(*times, strict=True))
    return [name, wall, cpu]


def _row(name: str, found: Timed, images: int) -> Row:
    """Return the row of an action that was taken once."""
    return [name, f"{1000 * found.wall / images:.3g}", f"{1000 * found.cpu / images:.3g}"]


def timed(action: Callable[[], Any]) -> tuple[Any, Timed]:
    """Return what an action returns, and what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, Timed(time.perf_counter() - wall, time.process_time() - cpu)


def _read(store: storage.Store, name: str) -> bytes:
    found = store.read(name)
    assert found
    return found[0]


if __name__ == "__main__":
    main()
