"""From encoded bytes to the pixels that the model sees: the one way, for training and for the served model alike.

    bytes -> RGB of the first frame, alpha over white -> upright (EXIF) -> resized to a square -> uint8

Everything here can run inside a TensorFlow graph. For an ordinary RGB picture the result is, rounded, what
`keras.utils.image_dataset_from_directory` gives: `tf.io.decode_image`, then `tf.image.resize` (bilinear, half-pixel
centres, no antialiasing, stretched).

TensorFlow's own decoders decide what a picture looks like, with these additions:

- alpha is laid over white, in PNG and WebP. GIF transparency is black, as TensorFlow draws it; one transparent colour
  in a PNG without a palette, and the fourth byte of a BMP, are ignored.
- of an animated GIF or WebP the first frame counts, of an animated PNG the still image.
- 16 bits become the upper 8; CMYK becomes RGB without colour profiles; no colour profile is applied.
- a BMP with 256 colours is looked up in its palette (TensorFlow takes the numbers for gray), and bytes behind its
  pixels are ignored, as in every other format (TensorFlow refuses them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from job.data.decode_exif import _integer, orientation
from job.data.quarantine import UnreadableImage

if TYPE_CHECKING:
    import numpy as np

    from job.data import image_header


def decode_image(data: bytes, header: image_header.Header, image_size: int) -> np.ndarray[Any, Any]:
    """Decode one image whose header has passed; may be called from several threads at once.

    Returns:
        uint8 [image_size, image_size, 3]: what `decode` gives.

    Raises:
        images.UnreadableImage: corrupt.
    """
    # note: op by op, not as a compiled function: that would take a sixth less CPU, but with one inter-op thread, which
    # reproducible bits need, TensorFlow runs functions one after the other, whatever thread calls them
    try:
        with tf.device("CPU:0"):
            encoded = tf.constant(data)
            image = _decode_jpeg(encoded) if header.format == "jpeg" else _decode_other(encoded)
            if header.orientation != 1:
                image = _upright(image, tf.constant(header.orientation))
            pixels: np.ndarray[Any, Any] = _resize(image, image_size).numpy()
    except tf.errors.InvalidArgumentError:
        raise UnreadableImage(
            "corrupt",
            f"a {header.format.upper()} image of {header.width} x {header.height} pixels that cannot be decoded: "
            "cut off or damaged",
        ) from None
    return pixels


def decode_batch(data: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a batch of images, each turned as its EXIF says: what the served model does with the bytes it is sent.

    Args:
        data: string [n], the encoded images.
        image_size: height and width of the result.

    Returns:
        uint8 [n, image_size, image_size, 3].

    Raises:
        tf.errors.InvalidArgumentError: one of them cannot be decoded.
    """
    return tf.map_fn(
        lambda one: decode(one, orientation(one), image_size),
        data,
        fn_output_signature=tf.TensorSpec([image_size, image_size, 3], tf.uint8),
    )


def decode(data: tf.Tensor, orientation: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode one image.

    Args:
        data: scalar string, the encoded image.
        orientation: scalar int32, EXIF 1 to 8.
        image_size: height and width of the result.

    Returns:
        uint8 [image_size, image_size, 3].

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
    """
    with tf.device("CPU:0"):  # the same numbers on every machine; there is no decoder on a GPU anyway
        # note: first what nearly every image is, so that it does not pay for the others
        is_jpeg = tf.strings.substr(data, 0, 2) == b"\xff\xd8"
        image = tf.cond(is_jpeg, lambda: _decode_jpeg(data), lambda: _decode_other(data))
        # note: upright before resized: the other way round the pixels differ, since float32 weights are not symmetric
        image = tf.cond(orientation == 1, lambda: image, lambda: _upright(image, orientation))
        return tf.ensure_shape(_resize(image, image_size), [image_size, image_size, 3])


def _resize(image: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize uint8 [height, width, 3] to a square, rounded to uint8."""
    # note: the op within tf.image.resize, whose checks in Python cost as much as a tenth of the decoding
    resized = tf.raw_ops.ResizeBilinear(
        images=tf.expand_dims(image, 0), size=[image_size, image_size], half_pixel_centers=True
    )
    # note: interpolation leaves 0..255 by a float32 rounding error at most, which tf.round takes away again
    return tf.cast(tf.round(tf.squeeze(resized, 0)), tf.uint8)


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
    data = tf.cond(is_webp, lambda: _animation_with_alpha(data), lambda: data)
    image = tf.io.decode_image(data, channels=0, expand_animations=False)
    channels = tf.shape(image)[2]
    image = tf.cond(channels % 2 == 0, lambda: _over_white(image), lambda: image)
    return tf.cond(channels < 3, lambda: tf.repeat(image, 3, axis=2), lambda: image)


def _animation_with_alpha(data: tf.Tensor) -> tf.Tensor:
    """Say in the header of an animated WebP that it has alpha.

    TensorFlow 2.21 decodes an animation to four channels, but makes room for three where the header says that there is
    no alpha, and writes beyond the end: a valid file corrupts the memory of the process.
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
    """Lay uint8 [height, width, colours + alpha] over white: 255 - (255 - colour) * alpha / 255, rounded."""
    # note: 16 bits just hold 255 * 255 + 127, at half the memory of float32, and one expression holds nothing longer
    # than needed: nowhere else does a large image take so much
    shade = (tf.cast(255 - image[..., :-1], tf.uint16) * tf.cast(image[..., -1:], tf.uint16) + 127) // 255
    return 255 - tf.cast(shade, tf.uint8)


def _decode_bmp(data: tf.Tensor) -> tf.Tensor:
    """Decode a BMP of 8, 24 or 32 bits a pixel to uint8 [height, width, 3]."""
    start, header_size, width, height = (tf.cast(_integer(data, at, 4), tf.int32) for at in (10, 14, 18, 22))
    bits = tf.cast(_integer(data, 28, 2), tf.int32)
    row = (width * (bits // 8) + 3) // 4 * 4
    exact = tf.strings.substr(data, 0, tf.maximum(start + row * tf.abs(height), 0))

    def look_up() -> tf.Tensor:
        palette = tf.io.decode_raw(tf.strings.substr(data, 14 + header_size, start - 14 - header_size), tf.uint8)
        blue_green_red = tf.reshape(palette[: tf.size(palette) // 4 * 4], [-1, 4])[:, :3]
        return tf.gather(blue_green_red[:, ::-1], tf.cast(tf.io.decode_bmp(exact, channels=0)[..., 0], tf.int32))

    return tf.cond(bits == 8, look_up, lambda: tf.io.decode_bmp(exact, channels=3))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn and mirror [height, width, channels] as EXIF orientation 1 to 8 says."""
    # note: as int8, since TensorFlow's oneDNN complains on stderr of every transpose of uint8
    signed = tf.bitcast(image, tf.int8)
    signed = tf.cond(orientation >= 5, lambda: tf.transpose(signed, [1, 0, 2]), lambda: signed)
    image = tf.bitcast(signed, tf.uint8)
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
    # note: ten times faster than a slice with negative steps
    return tf.raw_ops.Reverse(tensor=image, dims=tf.stack([upside_down, mirrored, False]))
