"""Reads how many pixels an encoded image has, inside a TensorFlow graph: before any of them is decoded.

The result is what `image_header.read_header` compares with `input.max_pixels`, so that the served model refuses what
training refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import tensorflow as tf

from job.data.decode_exif import read_uint

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BLOCKS: Final = 100_000
"""Steps in which the blocks of a GIF are read: bounds the time that a hostile file can cost, to seconds."""

_HEAD: Final = 64
"""Bytes that hold the size of an image of every format but JPEG."""
_FULL: Final = 255
"""Length of a full sub-block of a GIF."""
_RUN: Final = 256 * (1 + _FULL)
"""Bytes of the full sub-blocks that are read in one step."""


def pixel_count(data: tf.Tensor) -> tf.Tensor:
    """Return the pixels that a decoder holds for one encoded image.

    Args:
        data: scalar string, the whole file.

    Returns:
        Scalar int64: width x height; of a GIF those of all its frames, since the decoder decodes them all. Where the
        header is cut off or invalid, any number: the decoder finds no pixels then.

    Raises:
        tf.errors.InvalidArgumentError: not a JPEG, PNG, GIF, BMP or WebP.
    """
    with tf.device("CPU:0"):
        is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"  # first, since nearly every image is one
        return tf.cond(is_jpeg, lambda: _jpeg(data), lambda: _other(data))


def _other(data: tf.Tensor) -> tf.Tensor:
    # note: with zeros behind it, so that fields can be read from any file, however short: an error of substr would
    # quote the bytes, and TensorFlow fails to raise it where they are no UTF-8
    head = tf.strings.join([tf.strings.substr(data, 0, _HEAD), bytes(_HEAD)])

    def begins(signature: bytes, at: int = 0) -> tf.Tensor:
        return tf.strings.substr(head, at, len(signature)) == signature

    cases: list[tuple[tf.Tensor, Callable[[], tf.Tensor]]] = [
        (begins(b"\x89PNG\r\n\x1a\n"), lambda: _png(head)),
        (begins(b"RIFF") & begins(b"WEBP", 8), lambda: _webp(head)),
        (begins(b"GIF87a") | begins(b"GIF89a"), lambda: _gif(head, data)),
        (begins(b"BM"), lambda: _bmp(head)),
    ]
    known = tf.reduce_any([is_format for is_format, _ in cases])
    with tf.control_dependencies([tf.debugging.Assert(known, ["expected a JPEG, PNG, GIF, BMP or WebP image"])]):
        return tf.case(cases, default=lambda: tf.constant(0, tf.int64))


def _jpeg(data: tf.Tensor) -> tf.Tensor:
    height_and_width = tf.image.extract_jpeg_shape(data)[:2]
    return tf.reduce_prod(tf.cast(height_and_width, tf.int64))


def _png(head: tf.Tensor) -> tf.Tensor:
    return read_uint(head, 16, 4, big_endian=True) * read_uint(head, 20, 4, big_endian=True)


def _bmp(head: tf.Tensor) -> tf.Tensor:
    return tf.abs(_signed(read_uint(head, 18, 4))) * tf.abs(_signed(read_uint(head, 22, 4)))


def _signed(unsigned: tf.Tensor) -> tf.Tensor:
    return tf.where(unsigned < 2**31, unsigned, unsigned - 2**32)


def _webp(head: tf.Tensor) -> tf.Tensor:
    """Source: RFC 9649."""
    kind = tf.strings.substr(head, 12, 4)

    def lossless() -> tf.Tensor:
        sizes = read_uint(head, 21, 4)
        return (1 + (sizes & 0x3FFF)) * (1 + (sizes // 2**14 & 0x3FFF))

    def extended() -> tf.Tensor:
        width, height = read_uint(head, 24, 4) & 0xFFFFFF, read_uint(head, 26, 4) // 256  # 24 bits each
        return (1 + width) * (1 + height)

    def lossy() -> tf.Tensor:
        return (read_uint(head, 26, 2) & 0x3FFF) * (read_uint(head, 28, 2) & 0x3FFF)

    return tf.case([(kind == b"VP8L", lossless), (kind == b"VP8X", extended)], default=lossy)


def _gif(head: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Walk the blocks; source: GIF89a."""
    raw = tf.cast(tf.io.decode_raw(data, tf.uint8), tf.int32)
    size = tf.size(raw)
    first = 13 + _colour_table(raw[10])

    def read(position: tf.Tensor, steps: tf.Tensor, *found: tf.Tensor) -> tuple[tf.Tensor, ...]:
        is_frame = raw[position] == ord(",")
        fields = tf.cast(raw[position + 5 : position + 9], tf.int64)
        width, height = fields[0] + 256 * fields[1], fields[2] + 256 * fields[3]
        here = tf.where(is_frame, tf.stack([width, height, width * height]), tf.zeros(3, tf.int64))
        start = position + tf.where(is_frame, 11 + _colour_table(raw[position + 9]), 2)
        end, steps = _skip(raw, start, steps)
        widest, highest, total = found
        return end, steps + 1, tf.maximum(widest, here[0]), tf.maximum(highest, here[1]), total + here[2]

    def continues(position: tf.Tensor, steps: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        kind = raw[tf.minimum(position, size - 1)]
        is_block = (kind == ord(",")) | (kind == ord("!"))
        return (position + 10 <= size) & is_block & (steps < MAX_BLOCKS)

    zero = tf.constant(0, tf.int64)
    _, steps, widest, highest, total = tf.while_loop(continues, read, (first, tf.constant(0), zero, zero, zero))
    canvas = read_uint(head, 6, 2) * read_uint(head, 8, 2)
    count = tf.reduce_max([canvas, widest * highest, total])
    return tf.where(steps < MAX_BLOCKS, count, tf.int64.max)


def _colour_table(flags: tf.Tensor) -> tf.Tensor:
    """Return the bytes of the colour table that a byte of flags announces."""
    return tf.where(flags & 0x80 != 0, tf.bitwise.left_shift(3, (flags & 7) + 1), 0)


def _skip(raw: tf.Tensor, position: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the position after a chain of sub-blocks, and the steps with those that it took."""
    size = tf.size(raw)

    def step(position: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        lengths = raw[position : position + _RUN : 1 + _FULL]  # note: most writers fill all sub-blocks but the last
        full = tf.cast(tf.argmax(tf.concat([lengths != _FULL, [True]], axis=0)), tf.int32)
        return position + tf.where(full > 0, full * (1 + _FULL), 1 + lengths[0]), steps + 1

    position, steps = tf.while_loop(
        lambda position, steps: (position < size) & (steps < MAX_BLOCKS) & (raw[tf.minimum(position, size - 1)] != 0),
        step,
        (position, steps),
    )
    return position + 1, steps
