"""Each reader answers any bytes with a result or with an error of its own, in bounded memory.

Each target runs for ten seconds, or for FUZZ_SECONDS (`make fuzz`). A failure names the seed of its file.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from typing import TYPE_CHECKING

from drawn_images import EXIF_SAMPLES
from mutations import Mutator
from odd_images import KINDS

from job import uri
from job.config.load import load_settings
from job.data import image_header, import_files
from job.data.columns import Chosen
from job.data.quarantine import UnreadableImage
from job.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = float(os.environ.get("FUZZ_SECONDS", "10"))

MAX_MEMORY = 2**30
"""By which the process may grow, bytes."""

IMAGES = Mutator(
    [kind.build() for kind in KINDS.values()] + EXIF_SAMPLES,
    [b"Exif\0\0", b"II*\0", b"MM\0*", b"\xff\xd8", b"\xff\xe1", b"\xff\xc0", b"IHDR", b"eXIf", b"VP8X", b"EXIF", b","],
)
TABLES = Mutator(
    [
        b"image_uri,label,split\ngs://bkt/a.jpg,cat,train\nb.jpg,dog,test\n",
        b'\xef\xbb\xbf"a, b.jpg";"tabby, grey"\r\n"c""d.jpg";dog\r\n\r\n',
        b"TRAIN,gs://bkt/a.jpg,cat\n,gs://bkt/b.jpg,dog\nUNASSIGNED,gs://bkt/c.jpg,cat\n",
        b"filename,cats,dogs\na.jpg,1,0\nb.jpg,0,1\n",
        b'{"image": "a.jpg", "label": "cat", "split": "val"}\n\n{"label": "dog", "image": "b.jpg"}\n',
        b'{"imageGcsUri": "gs://bkt/a.jpg", "classificationAnnotation": {"displayName": "cat"}}\n',
        b'[{"image": "a.jpg", "label": "cat"}]',
        "bild,klasse\nä/é.jpg,дом\n".encode(),
    ],
    [
        b'"',
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b"{",
        b"}",
        b"[",
        b":",
        b"null",
        b"NaN",
        b"1e999",
        b"gs://",
        b"../",
        b"\xed\xb2\xa9",
    ],
)
SETTINGS = Mutator(
    [
        b"run: {seed: 7, id: a}\ninput:\n  uri: gs://bucket/in\n  exclude: [a/, '*/b']\noutput: {uri: gs://bucket/out}\n",
        b"keep: last\nmodel:\n  alpha: 0.5\n  image_size: 96\n  weights: none\ncache: {max_bytes: 1e9, dir: /tmp/x}\n",
        b"fine_tuning:\n  learning_rate: 1e-5\n  epochs: 0\ndevice: {threads: null, xla: true}\nlog: {format: json}\n",
    ],
    [
        b"&a",
        b"*a",
        b"<<: ",
        b"!!python/object",
        b"---\n",
        b"? ",
        b"- ",
        b"'",
        b'"',
        b"{",
        b"]",
        b": ",
        b"\t",
        b"1e999999999",
        b".inf",
    ],
)


def fuzz(mutator: Mutator, read: Callable[[bytes], object]) -> None:
    """Give a reader one damaged file after another.

    Raises:
        AssertionError: it failed otherwise than it may, or the process grew too much.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    deadline, seed = time.monotonic() + SECONDS, 0
    while time.monotonic() < deadline:
        data = mutator.mutate(seed)
        try:
            read(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data[:400]!r}") from error
        seed += 1
    assert seed > 100
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_MEMORY


def test_settings(tmp_path: Path) -> None:
    """A file of settings is read, or its mistakes are reported."""
    path = tmp_path / "settings.yaml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(SettingsError):
            load_settings(["--config", str(path)], {})

    fuzz(SETTINGS, read)


def test_manifests() -> None:
    """A table is read, or rejected with its lines."""
    places = [uri.parse("gs://bkt/lists/t.csv"), uri.parse("/data/t.jsonl")]
    kinds: list[import_files.Kind] = ["csv", "jsonl"]

    def read(data: bytes) -> None:
        for place in places:
            for kind in kinds:
                for chosen in (Chosen("", "", ""), Chosen("image", "label", "")):
                    with contextlib.suppress(DataError):
                        rows = list(import_files.read(data, place, kind, chosen))
                        assert all(row.name and row.label and row.split in range(4) for row in rows)

    fuzz(TABLES, read)


def header(data: bytes) -> image_header.Header | None:
    """Return the header of an image, None if it is refused with a known reason."""
    try:
        found = image_header.read_header(data, max_pixels=10_000)
    except UnreadableImage:
        return None
    assert 0 < found.width * found.height <= 10_000
    assert 1 <= found.orientation <= 8
    return found


def test_header_gate() -> None:
    """A file has a header within the limits, or a reason of the closed list."""
    fuzz(IMAGES, header)


def test_exif_parsers() -> None:
    """The parser in the served graph reads the same orientation as the header gate, or any for a refused file."""
    import tensorflow as tf

    from job.data import decode_exif

    served = tf.function(decode_exif.orientation, input_signature=[tf.TensorSpec([], tf.string)])

    def read(data: bytes) -> None:
        orientation = int(served(data))
        found = header(data)
        assert 1 <= orientation <= 8
        assert found is None or found.orientation == orientation

    fuzz(IMAGES, read)
