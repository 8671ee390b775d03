"""The size that a graph reads from an encoded image is the one that the header gate compares with the limit."""

from __future__ import annotations

import struct
from contextlib import suppress

import odd_images
import pytest
import tensorflow as tf
from drawn_images import EXIF_SAMPLES, encode, picture
from mutations import Mutator

from job.data import decode_size, image_header
from job.data.quarantine import UnreadableImage

count = tf.function(decode_size.pixel_count, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)

NO_LIMIT = 2**62
FRAME = b"," + struct.pack("<HHHHB", 0, 0, 30, 20, 0) + b"\2"


def gate_accepts(data: bytes, max_pixels: int) -> bool:
    """Whether the header gate would let this many pixels be decoded."""
    try:
        image_header.read_header(data, max_pixels=max_pixels)
    except UnreadableImage:
        return False
    return True


def gif(*blocks: bytes) -> bytes:
    """Write a GIF with a canvas of 10 x 10 pixels."""
    return b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0) + b"".join(blocks) + b";"


SAMPLES = {name: kind.build() for name, kind in odd_images.ALL.items()}
SAMPLES |= {f"exif {n}": data for n, data in enumerate(EXIF_SAMPLES)}
SAMPLES |= {
    "lossless": encode(picture("RGB", 300, 20), "WEBP", lossless=True),
    "large gif": encode(picture("P", 400, 300), "GIF"),
    "two frames": gif(FRAME, b"\3abc\0", FRAME, b"\1a\0"),
    "extension": gif(b"!\xfe\xff" + bytes(255) + b"\xff" + bytes(255) + b"\2ab\0", FRAME, b"\0"),
    "cut chain": gif(FRAME, b"\xff" * 300)[:200],
    "colour tables": gif(FRAME[:9] + b"\x87\2" + bytes(768), b"\1a\0", FRAME, b"\1a\0"),
}


@pytest.mark.parametrize("name", [name for name, data in SAMPLES.items() if gate_accepts(data, NO_LIMIT)])
def test_size_is_that_of_the_header_gate(name: str) -> None:
    """The gate accepts an image if the limit is the size that the graph reads, and not if it is one less."""
    data = SAMPLES[name]
    pixels = int(count(data))

    assert gate_accepts(data, pixels)
    assert not gate_accepts(data, pixels - 1)


def test_sizes_of_damaged_files() -> None:
    """For any bytes, the size is that of the gate, where both read one."""
    mutator = Mutator(list(SAMPLES.values()), [b"IHDR", b"VP8X", b"VP8L", b"GIF89a", b",", b"!", b"\xff\xc0"])
    compared = 0
    for data in map(mutator.mutate, range(400)):
        with suppress(UnreadableImage, tf.errors.InvalidArgumentError):
            image_header.read_header(data, max_pixels=NO_LIMIT)
            pixels = int(count(data))
            compared += 1
            assert gate_accepts(data, pixels), data
    assert compared > 40


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"BN", b"RIFF    AVI ", b"\xff\x0a" + bytes(99), b"<html>"])
def test_what_is_no_image_is_an_error(data: bytes) -> None:
    """A file of another format, or a JPEG that ends in its header, is an error of the operation."""
    with pytest.raises(tf.errors.InvalidArgumentError):
        count(data)


@pytest.mark.parametrize(
    "name", ["ljt_baseline_good.jpg", "png_rgb16.png", "pil_animated.webp", "lossless", "large gif", "pil_photo.bmp"]
)
def test_files_that_end_in_their_header(name: str) -> None:
    """A file that ends anywhere in its header is an error that can be raised, or has any size: it has no pixels."""
    for length in range(1, 40, 3):
        with suppress(tf.errors.InvalidArgumentError):
            count(SAMPLES[name][:length])


def test_a_gif_of_many_blocks_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a GIF are read in a limited number of steps: beyond it, it counts as too large."""
    monkeypatch.setattr(decode_size, "MAX_BLOCKS", 50)
    data = gif(FRAME, b"\1a" * 60 + b"\0")

    assert decode_size.pixel_count(tf.constant(data)) == tf.int64.max
    assert 600 == decode_size.pixel_count(tf.constant(gif(FRAME, b"\1a" * 40 + b"\0")))
