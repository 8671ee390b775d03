"""Decodes images to the pixels that the model sees: one code path for training and for the served model.

    bytes -> RGB of the first frame, alpha over white -> upright (EXIF) -> resized to a square -> uint8

Everything here can run inside a TensorFlow graph. For an ordinary RGB image the result is that of
`keras.utils.image_dataset_from_directory`, rounded: `tf.io.decode_image`, then `tf.image.resize` (bilinear, half-pixel
centres, no antialiasing, stretched).

TensorFlow's own decoders define the result, with these additions:

- alpha is composited over white, in PNG and WebP. GIF transparency is black, as TensorFlow draws it; a single
  transparent colour in a PNG without a palette, and the fourth byte of a BMP, are ignored.
- an animated GIF or WebP yields its first frame, an animated PNG its still image.
- 16 bits are reduced to the upper 8; CMYK is converted to RGB without colour profiles; no colour profile is applied.
- a BMP with 256 colours is looked up in its palette (TensorFlow treats the indices as gray), and bytes after its
  pixels are ignored, as in every other format (TensorFlow rejects them).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from job.data.decode_exif import orientation, read_uint
from job.data.decode_size import pixel_count
from job.data.quarantine import UnreadableImage
from job.runtime.native_stderr import NativeStderr

if TYPE_CHECKING:
    import contextlib

    import numpy as np

    from job.data import image_header

_STDERR = NativeStderr()
_LIBJPEG_WARNING = re.compile(
    "^(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression|Invalid SOS|Unknown Adobe|Warning: unknown).*",
    re.MULTILINE,
)
"""The lines of libjpeg-turbo's jerror.h that begin with JWRN_: it prints the first of an image."""

PARALLEL_DECODES = 10
"""Images of a batch that are decoded at once; limits the memory."""
UNREADABLE = "cannot be decoded: expected a JPEG, PNG, GIF, BMP or WebP image that is not cut off or damaged"
"""What `decode_batch` says about the image whose index it names."""
TOO_LARGE = "has more than {:,} pixels, the limit of its training (input.max_pixels)"
"""What it says about one that it does not decode."""


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8 [image_size, image_size, 3].
        warning: a sentence with what libjpeg warns about; empty if nothing.
    """

    pixels: np.ndarray[Any, Any]
    warning: str


def quiet() -> contextlib.AbstractContextManager[None]:
    """Drop what native code prints, while many images are decoded; it makes decoding each of them cheaper."""
    return _STDERR.redirected()


def decode_image(data: bytes, header: image_header.Header, image_size: int) -> np.ndarray[Any, Any]:
    """Decode one image whose header was accepted. Thread-safe. What libraries print about it is dropped.

    Returns:
        uint8 [image_size, image_size, 3], the same as `decode`.

    Raises:
        UnreadableImage: corrupt.
    """
    with _STDERR.shared():
        return _decode_image(data, header, image_size)


def decode_and_check(data: bytes, header: image_header.Header, image_size: int, *, refuse_damaged: bool) -> Decoded:
    """Decode one image as `decode_image` does, and find out whether libjpeg warns about it: damage that decodes.

    TensorFlow does not return libjpeg's warnings: they are found on stderr. Where several threads decode, all images
    that were decoded meanwhile are suspects, and each suspect is decoded once more while no other is.

    Raises:
        UnreadableImage: corrupt; or damaged, if such images are refused.
    """
    with _STDERR.shared() as block:
        pixels = _decode_image(data, header, image_size)
        is_suspect = header.format == "jpeg" and block.was_written()
    warning = _libjpeg_warning(data) if is_suspect else ""
    if warning and refuse_damaged:
        raise UnreadableImage("damaged", warning)
    return Decoded(pixels, warning)


def _libjpeg_warning(data: bytes) -> str:
    with _STDERR.alone() as written, tf.device("CPU:0"):
        _decode_jpeg(tf.constant(data)).numpy()
        found = _LIBJPEG_WARNING.search(written())
    return f"libjpeg warns: {found[0].removeprefix('Warning: ')}" if found else ""


def _decode_image(data: bytes, header: image_header.Header, image_size: int) -> np.ndarray[Any, Any]:
    # note: op by op: a compiled function takes a sixth less CPU, but with one inter-op thread, which reproducible bits
    # need, TensorFlow runs functions one after the other, whatever thread calls them
    try:
        with tf.device("CPU:0"):
            encoded = tf.constant(data)
            image = _decode_jpeg(encoded) if header.format == "jpeg" else _decode_other(encoded)
            if header.orientation != 1:
                image = _upright(image, tf.constant(header.orientation))
            pixels: np.ndarray[Any, Any] = _resize_one(image, image_size).numpy()
    except tf.errors.InvalidArgumentError:
        raise UnreadableImage(
            "corrupt",
            f"a {header.format.upper()} image of {header.width} x {header.height} pixels that cannot be decoded: "
            "cut off or damaged",
        ) from None
    return pixels


def decode_batch(data: tf.Tensor, image_size: int, *, max_pixels: int) -> tf.Tensor:
    """Decode a batch of images and apply their EXIF orientations: the served model's input step.

    Args:
        data: string [n], the encoded images.
        image_size: height and width of the result.
        max_pixels: images of more pixels are not decoded.

    Returns:
        uint8 [n, image_size, image_size, 3]; n may be 0.

    Raises:
        tf.errors.InvalidArgumentError: an image cannot be decoded, or is too large. The message names the first such
            index.
    """
    shape = [image_size, image_size, 3]

    def decode_row(row: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fits = pixel_count(encoded) <= max_pixels
        pixels = tf.cond(fits, lambda: _resize_one(_decode(encoded), image_size), lambda: tf.zeros(shape, tf.uint8))
        return tf.where(fits, row, -2 - row), tf.ensure_shape(pixels, shape)

    # note: a graph cannot catch an operation's error, but a dataset can drop the rows that fail. The end row keeps the
    # dataset from being empty, and its number differs from every position, as do those of images that are too large.
    with tf.device("CPU:0"):
        size = tf.shape(data)[0]
        rows = tf.data.Dataset.from_tensor_slices((tf.range(size), data))
        decoded = rows.map(decode_row, num_parallel_calls=PARALLEL_DECODES, deterministic=True).ignore_errors()
        end = tf.data.Dataset.from_tensors((-1, tf.zeros(shape, tf.uint8)))
        numbers, pixels = decoded.concatenate(end).batch(tf.cast(size, tf.int64) + 1).get_single_element()
        bad = numbers[:-1] != tf.range(tf.size(numbers) - 1)
        first_bad = tf.argmax(tf.concat([bad, [True]], axis=0), output_type=tf.int32)
        reason = tf.where(numbers[first_bad] == -2 - first_bad, TOO_LARGE.format(max_pixels), UNREADABLE)
        message = tf.strings.format("image {} of the batch (counted from 0) ", first_bad) + reason
        with tf.control_dependencies([tf.debugging.Assert(first_bad == size, [message])]):
            return tf.identity(pixels[:-1])


def decode(data: tf.Tensor, *, max_pixels: int) -> tf.Tensor:
    """Decode one image to its upright pixels.

    Args:
        data: scalar string, the encoded image.
        max_pixels: an image of more pixels is not decoded.

    Returns:
        uint8 [height, width, 3], with the EXIF orientation applied.

    Raises:
        tf.errors.InvalidArgumentError: the image cannot be decoded, or is too large.
    """
    fits = pixel_count(data) <= max_pixels
    with tf.control_dependencies([tf.debugging.Assert(fits, ["the image " + TOO_LARGE.format(max_pixels)])]):
        return _decode(tf.identity(data))


def _decode(data: tf.Tensor) -> tf.Tensor:
    with tf.device("CPU:0"):  # the same result on every machine; there is no GPU decoder anyway
        # note: JPEG first: nearly every image is one, and it should not pay for the others
        is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
        image = tf.cond(is_jpeg, lambda: _decode_jpeg(data), lambda: _decode_other(data))
        # note: rotate before resizing: in the other order the pixels differ, since float32 weights are not symmetric
        exif_orientation = orientation(data)
        upright = tf.cond(exif_orientation == 1, lambda: image, lambda: _upright(image, exif_orientation))
        return tf.ensure_shape(upright, [None, None, 3])


def resize(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize a batch, uint8 [n, height, width, 3], to squares, rounded to uint8 [n, image_size, image_size, 3]."""
    with tf.device("CPU:0"):  # the same result on every machine
        # note: the op inside tf.image.resize, whose Python checks cost a tenth of the decoding
        resized = tf.raw_ops.ResizeBilinear(images=images, size=[image_size, image_size], half_pixel_centers=True)
        # note: interpolation exceeds 0..255 by at most a float32 rounding error, which tf.round removes
        return tf.cast(tf.round(resized), tf.uint8)


def _resize_one(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize uint8 [height, width, 3] to a square."""
    return tf.squeeze(resize(tf.expand_dims(image, 0), image_size), 0)


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Decode JPEG to uint8 [height, width, 3]."""
    return tf.io.decode_jpeg(data, channels=3)


def _decode_other(data: tf.Tensor) -> tf.Tensor:
    """Decode PNG, GIF, BMP and WebP to uint8 [height, width, 3]."""
    is_bmp = tf.strings.substr(data, 0, 2) == b"BM"
    return tf.cond(is_bmp, lambda: _decode_bmp(data), lambda: _decode_with_alpha(data))


def _decode_with_alpha(data: tf.Tensor) -> tf.Tensor:
    """Decode PNG, GIF and WebP to uint8 [height, width, 3]."""
    is_webp = tf.strings.substr(data, 0, 4) == b"RIFF"
    data = tf.cond(is_webp, lambda: _set_animation_alpha(data), lambda: data)
    image = tf.io.decode_image(data, channels=0, expand_animations=False)
    channels = tf.shape(image)[2]
    image = tf.cond(channels % 2 == 0, lambda: _over_white(image), lambda: image)
    return tf.cond(channels < 3, lambda: tf.repeat(image, 3, axis=2), lambda: image)


def _set_animation_alpha(data: tf.Tensor) -> tf.Tensor:
    """Set the alpha flag in the header of an animated WebP.

    TensorFlow 2.21 decodes an animation to four channels, but allocates three if the header has no alpha flag, and
    writes past the end of the buffer: a valid file corrupts the memory of the process.
    """
    animation, alpha = 0x02, 0x10
    flags = tf.io.decode_raw(tf.strings.substr(data, 20, 1), tf.uint8)[0]
    is_animated = (tf.strings.substr(data, 12, 4) == b"VP8X") & (flags & animation != 0)
    return tf.cond(
        is_animated,
        lambda: tf.strings.join(
            [tf.strings.substr(data, 0, 20), bytes([animation | alpha]), tf.strings.substr(data, 21, -1)]
        ),
        lambda: data,
    )


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """Composite uint8 [height, width, colours + alpha] over white: 255 - (255 - colour) * alpha / 255, rounded."""
    # note: 16 bits just hold 255 * 255 + 127, at half the memory of float32, and a single expression keeps no
    # intermediate longer than needed: this is where a large image takes the most memory
    shade = (tf.cast(255 - image[..., :-1], tf.uint16) * tf.cast(image[..., -1:], tf.uint16) + 127) // 255
    return 255 - tf.cast(shade, tf.uint8)


def _decode_bmp(data: tf.Tensor) -> tf.Tensor:
    """Decode a BMP of 8, 24 or 32 bits a pixel to uint8 [height, width, 3]."""
    start, header_size, width, height = (tf.cast(read_uint(data, at, 4), tf.int32) for at in (10, 14, 18, 22))
    bits = tf.cast(read_uint(data, 28, 2), tf.int32)
    row = (width * (bits // 8) + 3) // 4 * 4
    trimmed = tf.strings.substr(data, 0, tf.maximum(start + row * tf.abs(height), 0))

    def look_up_palette() -> tf.Tensor:
        palette = tf.io.decode_raw(tf.strings.substr(data, 14 + header_size, start - 14 - header_size), tf.uint8)
        blue_green_red = tf.reshape(palette[: tf.size(palette) // 4 * 4], [-1, 4])[:, :3]
        return tf.gather(blue_green_red[:, ::-1], tf.cast(tf.io.decode_bmp(trimmed, channels=0)[..., 0], tf.int32))

    return tf.cond(bits == 8, look_up_palette, lambda: tf.io.decode_bmp(trimmed, channels=3))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Rotate and mirror [height, width, channels] according to EXIF orientation 1 to 8."""
    # note: as int8, since TensorFlow's oneDNN logs an error on stderr for every transpose of uint8
    signed = tf.bitcast(image, tf.int8)
    signed = tf.cond(orientation >= 5, lambda: tf.transpose(signed, [1, 0, 2]), lambda: signed)
    image = tf.bitcast(signed, tf.uint8)
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
    # note: ten times faster than a slice with negative steps
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([upside_down, mirrored, False]))
