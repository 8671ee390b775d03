"""Reads the EXIF orientation of encoded bytes inside a TensorFlow graph.

The result equals `image_header.read_header(...).orientation`, and the steps are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from job.data import image_header

if TYPE_CHECKING:
    from collections.abc import Callable


def orientation(data: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation of one encoded image.

    Args:
        data: scalar string.

    Returns:
        Scalar int32, 1 to 8; 1 if absent or invalid.
    """
    with tf.device("CPU:0"):
        # note: searching for the word costs a twentieth of the parser's time, and most images do not contain it
        stripped = tf.strings.regex_replace(data, "(?i)exif", "", replace_global=False)
        return tf.cond(
            tf.strings.length(stripped) == tf.strings.length(data), lambda: tf.constant(1), lambda: _orientation(data)
        )


def _orientation(data: tf.Tensor) -> tf.Tensor:
    cases = [
        (tf.strings.substr(data, 0, 2) == b"\xff\xd8", lambda: _jpeg_exif(data)),
        (tf.strings.substr(data, 0, 4) == b"\x89PNG", lambda: _png_exif(data)),
        (tf.strings.substr(data, 0, 4) == b"RIFF", lambda: _webp_exif(data)),
    ]
    return _orientation_in(tf.case(cases, default=lambda: tf.constant(b"")))


def _jpeg_exif(data: tf.Tensor) -> tf.Tensor:
    def read(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        marker = tf.io.decode_raw(tf.strings.substr(data, position, 2), tf.uint8)
        continues = (marker[0] == 0xFF) & (marker[1] >= 0xDB)
        is_exif = (marker[1] == 0xE1) & (tf.strings.substr(data, position + 4, 6) == b"Exif\0\0")
        end = position + 2 + read_uint(data, position + 2, 2, big_endian=True)
        next_position = tf.where(marker[1] == 0xFF, position + 1, end)
        return continues, is_exif, position + 4, end, next_position

    return _find(data, 2, 10, read)


def _png_exif(data: tf.Tensor) -> tf.Tensor:
    def read(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        is_exif = tf.strings.substr(data, position + 4, 4) == b"eXIf"
        end = position + 8 + read_uint(data, position, 4, big_endian=True)
        return tf.constant(True), is_exif, position + 8, end, end + 4

    return _find(data, 8, 12, read)


def _webp_exif(data: tf.Tensor) -> tf.Tensor:
    header = tf.strings.join([data, bytes(24)])  # so that it can be read from any file, however short
    has_exif = tf.strings.substr(header, 12, 4) == b"VP8X"
    flags = tf.io.decode_raw(tf.strings.substr(header, 20, 1), tf.uint8)
    has_exif &= tf.reduce_any(flags & 0x08 != 0)

    def read(position: tf.Tensor) -> tuple[tf.Tensor, ...]:
        is_exif = tf.strings.substr(data, position, 4) == b"EXIF"
        start, length = position + 8, read_uint(data, position + 4, 4)
        return has_exif, is_exif, start, start + length, start + length + length % 2

    return _find(data, 12, 8, read)


def _find(data: tf.Tensor, first: int, min_bytes: int, read: Callable[[tf.Tensor], tuple[tf.Tensor, ...]]) -> tf.Tensor:
    """Walk the segments up to the one with EXIF; return its bytes, or none.

    Args:
        data: scalar string.
        first: position of the first segment.
        min_bytes: the smallest size of a segment.
        read: position of a segment -> whether to continue, whether it is EXIF, start and end of the EXIF, position of
            the next segment.
    """
    size = tf.cast(tf.strings.length(data), tf.int64)

    def step(position: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        continues, is_exif, start, end, next_position = read(position)
        found = continues & is_exif
        return next_position, continues & ~is_exif, tf.where(found, start, 0), tf.where(found, end, 0)

    zero = tf.constant(0, tf.int64)
    _, _, start, end = tf.while_loop(
        lambda position, continues, *_: continues & (position + min_bytes <= size),
        step,
        (tf.constant(first, tf.int64), tf.constant(True), zero, zero),
        maximum_iterations=image_header.MAX_SEGMENTS,
    )
    return tf.strings.substr(data, start, tf.maximum(end - start, 0))


def _orientation_in(exif: tf.Tensor) -> tf.Tensor:
    """Read the orientation in an EXIF block, scalar string; 1 if invalid."""
    has_prefix = tf.strings.substr(exif, 0, 6) == b"Exif\0\0"
    tiff = tf.cond(has_prefix, lambda: tf.strings.substr(exif, 6, -1), lambda: exif)
    size = tf.cast(tf.strings.length(tiff), tf.int64)
    tiff = tf.strings.join([tiff, bytes(8)])  # so that the fixed fields can be read from any block, however short
    magic = tf.strings.substr(tiff, 0, 4)
    is_big = magic == b"MM\0*"

    def integer(at: tf.Tensor | int, width: int) -> tf.Tensor:
        return tf.where(is_big, read_uint(tiff, at, width, big_endian=True), read_uint(tiff, at, width))

    directory = tf.minimum(integer(4, 4), size)
    count = tf.minimum(integer(directory, 2), tf.maximum(size - directory - 2, 0) // 12)
    entries = tf.reshape(tf.io.decode_raw(tf.strings.substr(tiff, directory + 2, 12 * count), tf.uint8), [-1, 12])
    # tag 0x0112 as one SHORT, in either byte order
    expected = tf.where(is_big, list(b"\1\x12\0\3\0\0\0\1"), list(b"\x12\1\3\0\1\0\0\0"))
    expected = tf.cast(expected, tf.uint8)
    first = tf.boolean_mask(entries, tf.reduce_all(entries[:, :2] == expected[:2], axis=1))[:1]
    high, low = tf.where(is_big, first[:, 8], first[:, 9]), tf.where(is_big, first[:, 9], first[:, 8])
    is_valid = tf.reduce_all(first[:, :8] == expected, axis=1) & (high == 0) & (low >= 1) & (low <= 8)
    is_valid &= is_big | (magic == b"II*\0")
    return tf.reduce_max(tf.concat([[1], tf.where(is_valid, tf.cast(low, tf.int32), 1)], axis=0))


def read_uint(data: tf.Tensor, at: tf.Tensor | int, width: int, *, big_endian: bool = False) -> tf.Tensor:
    """Read an unsigned integer of 2 or 4 bytes as int64."""
    raw = tf.strings.substr(data, tf.cast(at, tf.int64), tf.constant(width, tf.int64))
    signed = tf.io.decode_raw(raw, tf.uint16 if width == 2 else tf.int32, little_endian=not big_endian)[0]
    return tf.cast(signed, tf.int64) & 0xFFFFFFFF
