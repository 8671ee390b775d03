"""Decoding: what each kind of image looks like to the model, the same in training and when served."""

from __future__ import annotations

import dataclasses
import io
import itertools
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import keras
import numpy as np
import odd_images
import pytest
import tensorflow as tf
from drawn_images import EXIF_SAMPLES, MAX_PIXELS, decoded, encode, oriented, picture
from paths import BAD_IMAGES, PHOTOS
from PIL import Image, ImageOps

from job.data import decode, image_header
from job.data.image_header import Header
from job.data.quarantine import Reason, UnreadableImage

if TYPE_CHECKING:
    from pathlib import Path


# as the served model does it
served = tf.function(
    lambda data: decode.decode_batch(data, image_size=24, max_pixels=MAX_PIXELS),
    input_signature=[tf.TensorSpec([None], tf.string)],
)


limited = tf.function(
    lambda data: decode.decode_batch(data, image_size=24, max_pixels=48 * 40 - 1),
    input_signature=[tf.TensorSpec([None], tf.string)],
)
limited_one = tf.function(
    lambda data: decode.decode(data, max_pixels=48 * 40 - 1), input_signature=[tf.TensorSpec([], tf.string)]
)


# -- ordinary pictures are as Keras sees them ------------------------------------------------------------------------


@pytest.mark.parametrize("image_size", [24, 32])
def test_pixels_are_those_of_keras(tmp_path: Path, image_size: int) -> None:
    """Pictures without alpha or EXIF are, rounded, what image_dataset_from_directory gives."""
    sizes = [(31, 17), (24, 24), (200, 301), (1, 1), (5, 64)]
    files = [
        ("jpeg", encode(picture("RGB", *size), "JPEG", quality=90, subsampling=subsampling))
        for size, subsampling in itertools.product(sizes, ["4:2:0", "4:4:4"])
    ]
    files += [("jpeg", encode(picture("L", 40, 30), "JPEG")), ("jpeg", encode(picture("CMYK", 40, 30), "JPEG"))]
    files += [("png", encode(picture("RGB", 40, 30), "PNG")), ("png", encode(picture("L", 40, 30), "PNG"))]
    files += [("gif", encode(picture("P", 40, 30), "GIF")), ("bmp", encode(picture("RGB", 41, 30), "BMP"))]
    (tmp_path / "label").mkdir()
    for index, (suffix, data) in enumerate(files):
        (tmp_path / "label" / f"{index:03}.{suffix}").write_bytes(data)

    dataset = keras.utils.image_dataset_from_directory(
        tmp_path, labels=None, batch_size=None, image_size=(image_size, image_size), shuffle=False, verbose=False
    )

    for (_, data), expected in zip(files, dataset.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(np.rint(expected).astype(np.uint8), decoded(data, image_size))


@pytest.mark.needs_shared
def test_photos_are_those_of_keras() -> None:
    """Real photos are, rounded, what Keras decodes and resizes."""
    photos = sorted(PHOTOS.rglob("*.jpg"))[::60]
    assert photos
    for photo in photos:
        image = tf.io.decode_image(photo.read_bytes(), channels=3, expand_animations=False)
        expected = np.rint(tf.image.resize(image, [224, 224])).astype(np.uint8)

        np.testing.assert_array_equal(expected, decoded(photo.read_bytes(), 224))


# -- the other kinds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {"transparency": bytes(range(0, 256, 16))}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    ],
)
def test_alpha_is_laid_over_white(image_format: str, mode: str, options: dict[str, object]) -> None:
    """Transparent pixels become white, and half-transparent ones the mean with white, rounded."""
    image = picture("RGB").quantize(16) if mode == "P" else picture(mode)
    data = encode(image, image_format, **options)
    rgba = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"), float)
    colours, alpha = rgba[..., :3], rgba[..., 3:] / 255

    np.testing.assert_array_equal(np.rint(colours * alpha + 255 * (1 - alpha)).astype(np.uint8), decoded(data))


def test_gif_transparency_becomes_black() -> None:
    """A GIF's transparent pixels are black, as TensorFlow draws them."""
    image = picture("RGB").quantize(16)
    expected = np.asarray(image.convert("RGB")) * (np.asarray(image) != 3)[..., None]

    np.testing.assert_array_equal(expected, decoded(encode(image, "GIF", transparency=3)))


def test_one_transparent_colour_in_a_png_stays() -> None:
    """A PNG without a palette whose header names one transparent colour is opaque, as TensorFlow draws it."""
    image = picture()

    np.testing.assert_array_equal(image, decoded(encode(image, "PNG", transparency=image.getpixel((0, 0)))))


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_counts(image_format: str, mode: str) -> None:
    """An animation is decoded to its first frame, also where TensorFlow would write beyond its memory for it."""
    first, *others = (Image.new(mode, (24, 24), colour) for colour in ("red", "green", "blue"))
    options = {"save_all": True, "append_images": others} | ({"lossless": True} if image_format == "WEBP" else {})

    pixels = decoded(encode(first, image_format, **options))

    assert (np.array([255, 0, 0]) == pixels).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("behind", [b"", b"\0\0", b"garbage"])
def test_bmp(mode: str, behind: bytes) -> None:
    """A BMP of any supported depth looks as in other programs, whatever follows its pixels."""
    image = picture("RGB").quantize(100) if mode == "P" else picture(mode)
    expected = np.asarray(image)[..., :3] if mode == "RGBA" else np.asarray(image.convert("RGB"))

    np.testing.assert_array_equal(expected, decoded(encode(image, "BMP") + behind))


def test_bmp_with_rows_from_the_top() -> None:
    """A BMP with a negative height is not upside down."""
    rows = np.asarray(picture())[:, :, ::-1]
    top_down = encode(picture(), "BMP")[:22] + struct.pack("<i", -24) + encode(picture(), "BMP")[26:54] + rows.tobytes()

    np.testing.assert_array_equal(rows[:, :, ::-1], decoded(top_down))


def test_sixteen_bits_become_the_upper_eight() -> None:
    """A 16-bit PNG is decoded to its upper bytes."""
    values = np.random.default_rng(7).integers(0, 2**16, (24, 24), dtype=np.uint16)
    data = encode(Image.fromarray(values), "PNG")

    np.testing.assert_array_equal(np.repeat(values[..., None] >> 8, 3, axis=2), decoded(data))


# -- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(image_format: str, orientation: int, order: str) -> None:
    """A picture with an EXIF orientation is decoded upright."""
    data = oriented(image_format, orientation, order)
    stored = Image.fromarray(tf.io.decode_image(data, channels=3, expand_animations=False).numpy())
    stored.getexif()[0x0112] = orientation
    upright = encode(ImageOps.exif_transpose(stored), "PNG")

    assert orientation == image_header.read_header(data, max_pixels=MAX_PIXELS).orientation
    np.testing.assert_array_equal(decoded(upright), decoded(data))


# -- together --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batch_is_decoded_image_by_image() -> None:
    """A batch of mixed formats, sizes and orientations is served as the images are decoded in training."""
    batch = [
        *EXIF_SAMPLES,
        encode(picture("LA"), "PNG"),
        encode(picture("P", 9, 7), "BMP"),
        encode(picture("L"), "GIF"),
    ]

    pixels = served(tf.constant(batch)).numpy()

    assert np.uint8 == pixels.dtype
    np.testing.assert_array_equal(np.stack([decoded(data) for data in batch]), pixels)


def test_empty_batch() -> None:
    """No images are no error."""
    assert (0, 24, 24, 3) == served(tf.constant([], tf.string)).shape


def wide(image_format: str) -> bytes:
    """Encode an image of 48 x 40 pixels, more than the limit of the next test."""
    return encode(picture("P" if image_format == "GIF" else "RGB", 48, 40), image_format)


@pytest.mark.slow
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_too_many_pixels_are_not_decoded(image_format: str) -> None:
    """An image above the limit is refused by its index and with the limit, also one that could not be decoded."""
    good, large = encode(picture(), "PNG"), wide(image_format)[:900]  # cut off: decoding it would be another error

    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image 1 of the batch .* has more than 1,919 pixels"):
        limited(tf.constant([good, large, good, b"", large]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image 1 of the batch .* cannot be decoded"):
        limited(tf.constant([good, b"", large]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="has more than 1,919 pixels"):
        limited_one(large)
    assert (1, 24, 24, 3) == limited(tf.constant([good])).shape
    assert (24, 24, 3) == limited_one(good).shape


def test_threads_do_not_disturb_each_other() -> None:
    """Images decoded from several threads at once are the same as one after the other."""
    batch = [encode(picture("RGB", 100 + index, 90), "JPEG") for index in range(40)]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(decoded, batch))

    np.testing.assert_array_equal([decoded(data) for data in batch], together)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damage_behind_the_header(image_format: str) -> None:
    """A file cut off within its pixels is corrupt, said without TensorFlow's words; the served model refuses it."""
    data = encode(picture("P" if image_format == "GIF" else "RGB", 200, 200), image_format)
    data = data[: len(data) * 2 // 3]

    with pytest.raises(UnreadableImage) as caught:
        decoded(data)
    with pytest.raises(tf.errors.InvalidArgumentError):
        served(tf.constant([data]))

    assert "corrupt" == caught.value.reason
    assert f"{image_format} image of 200 x 200 pixels" in caught.value.detail
    assert "Op:" not in caught.value.detail


# -- odd files, built here, and real ones of other decoders' test suites ----------------------------------------------


def outcome(data: bytes) -> image_header.Header | Reason:
    """Return the header, with the same pixels in training and when served, or the reason why there are none."""
    try:
        header = image_header.read_header(data, max_pixels=MAX_PIXELS)
        pixels = decode.decode_image(data, header, 24)
    except UnreadableImage as error:
        return error.reason
    np.testing.assert_array_equal(served(tf.constant([data]))[0], pixels)
    return header


@pytest.mark.parametrize("name", odd_images.ALL)
def test_outcome_of_odd_files(name: str) -> None:
    """Each kind of odd file has its outcome: a header and the same pixels in training and when served, or a reason."""
    kind = odd_images.ALL[name]

    assert kind.verdict == outcome(kind.build())


WARNED_ABOUT = [name for name, kind in odd_images.ALL.items() if kind.warning]


@pytest.mark.parametrize("name", [name for name, kind in odd_images.ALL.items() if isinstance(kind.verdict, Header)])
def test_what_libjpeg_warns_about(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An image that decodes has libjpeg's warning, or none, and the same pixels; nothing reaches stderr."""
    data, warning = odd_images.ALL[name].build(), odd_images.ALL[name].warning
    header = image_header.read_header(data, max_pixels=MAX_PIXELS)

    pixels, found = decode.decode_and_check(data, header, 24, refuse_damaged=False)

    np.testing.assert_array_equal(decode.decode_image(data, header, 24), pixels)
    assert bool(warning) == bool(found)
    assert found.startswith(f"libjpeg warns: {warning}" if warning else "")
    assert not capfd.readouterr().err


@pytest.mark.parametrize("name", WARNED_ABOUT)
def test_damaged_images_can_be_refused(name: str) -> None:
    """With input.damaged: quarantine an image that libjpeg warns about is refused with the warning as its detail."""
    data = odd_images.ALL[name].build()

    with pytest.raises(UnreadableImage) as caught:
        decode.decode_and_check(data, image_header.read_header(data, max_pixels=MAX_PIXELS), 24, refuse_damaged=True)

    assert "damaged" == caught.value.reason
    assert odd_images.ALL[name].warning in caught.value.detail


def test_a_warning_belongs_to_its_image() -> None:
    """Of images decoded by many threads at once, those that libjpeg warns about are found, each with its warning."""
    kinds = [odd_images.ALL[name] for name in [*WARNED_ABOUT, *["ljt_baseline_good.jpg", "made_1x1.png"] * 9]] * 8
    batch = [(kind.build(), kind.warning) for kind in kinds]
    np.random.default_rng(1).shuffle(batch)

    def check(data: bytes) -> str:
        header = image_header.read_header(data, max_pixels=MAX_PIXELS)
        return decode.decode_and_check(data, header, 24, refuse_damaged=False).warning

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(check, [data for data, _ in batch]))

    assert [bool(warning) for _, warning in batch] == [bool(warning) for warning in found]
    assert all(expected in warning for (_, expected), warning in zip(batch, found, strict=True))


@pytest.mark.parametrize("name", [name for name, kind in odd_images.ALL.items() if kind.header != kind.verdict])
def test_what_libraries_say_of_corrupt_images_is_dropped(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """What libjpeg prints about an image that cannot be decoded does not reach stderr."""
    data = odd_images.ALL[name].build()

    with pytest.raises(UnreadableImage):
        decoded(data)

    assert not capfd.readouterr().err


OUTCOMES: dict[str, image_header.Header | Reason] = {
    "exif_landscape_2_mirrored.jpg": image_header.Header("jpeg", 1800, 1200, 2),
    "exif_portrait_8.jpg": image_header.Header("jpeg", 1800, 1200, 8),
    "ljt_12bit.jpg": "unsupported_format",
    "ljt_baseline_good.jpg": image_header.Header("jpeg", 227, 149, 1),
    "made_1x1.png": image_header.Header("png", 1, 1, 1),
    "made_gif_named.jpg": image_header.Header("gif", 128, 128, 1),
    "made_half.jpg": "corrupt",
    "made_html_404.jpg": "not_an_image",
    "made_huge_1bit_20000x20000.png": "too_large",
    "made_png_named.jpg": image_header.Header("png", 128, 128, 1),
    "made_s3_access_denied.jpg": "not_an_image",
    "made_trailing_garbage.jpg": image_header.Header("jpeg", 500, 374, 1),
    "made_webp_named.jpg": image_header.Header("webp", 128, 128, 1),
    "pil_16bit_qtables.jpg": image_header.Header("jpeg", 128, 128, 1),
    "pil_16bit_rgb.tiff": "unsupported_format",
    "pil_animated.webp": image_header.Header("webp", 245, 245, 1),
    "pil_apng.png": image_header.Header("png", 128, 64, 1),
    "pil_bomb.gif": "too_large",
    "pil_broken.png": "corrupt",
    "pil_cmyk.jpg": image_header.Header("jpeg", 100, 100, 1),
    "pil_decompression_dos.png": image_header.Header("png", 1, 1, 1),
    "pil_gray.jpg": image_header.Header("jpeg", 128, 128, 1),
    "pil_icc_after_sof.jpg": image_header.Header("jpeg", 10, 10, 1),
    "pil_mpo_named_jpg.jpg": image_header.Header("jpeg", 640, 480, 1),
    "pil_orientation6_webp.webp": image_header.Header("webp", 128, 128, 6),
    "pil_photo.avif": "unsupported_format",
    "pil_photo.bmp": image_header.Header("bmp", 128, 128, 1),
    "pil_photo.webp": image_header.Header("webp", 480, 360, 1),
    "pil_transparent.gif": image_header.Header("gif", 200, 150, 1),
    "pil_truncated_app14.jpg": image_header.Header("jpeg", 100, 100, 1),
    "pil_truncated_end_chunk.png": "corrupt",
    "pil_truncated_jpeg.jpg": "corrupt",
    "pil_ultrahdr.jpg": "corrupt",
    "png_bad_colour_type.png": "corrupt",
    "png_bad_crc_idat.png": "corrupt",
    "png_gray1.png": image_header.Header("png", 32, 32, 1),
    "png_gray16.png": image_header.Header("png", 32, 32, 1),
    "png_interlaced_gray_alpha.png": image_header.Header("png", 32, 32, 1),
    "png_missing_idat.png": "corrupt",
    "png_palette_alpha.png": image_header.Header("png", 32, 32, 1),
    "png_rgb16.png": image_header.Header("png", 32, 32, 1),
    "tf_bad_huffman.jpg": image_header.Header("jpeg", 1024, 768, 1),
    "tf_cmyk.jpg": image_header.Header("jpeg", 128, 256, 1),
    "tf_corrupt34_2.jpg": "corrupt",
    "tf_corrupt34_3.jpg": "corrupt",
}


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", OUTCOMES)
def test_outcome_of_real_files(name: str) -> None:
    """Each real file has its outcome, and it is that of the file of its kind that is built here, but for the size."""
    found = outcome((BAD_IMAGES / name).read_bytes())

    assert OUTCOMES[name] == found
    assert without_size(odd_images.KINDS[name].verdict) == without_size(found)


def without_size(found: image_header.Header | Reason) -> image_header.Header | Reason:
    """Return an outcome that files of any size may have."""
    return found if isinstance(found, str) else dataclasses.replace(found, width=0, height=0)


@pytest.mark.needs_shared
def test_every_real_file_has_an_outcome() -> None:
    """No file of the collection is left out, and there is one of its kind that is built here."""
    assert set(OUTCOMES) == {file.name for file in BAD_IMAGES.iterdir()} - {"TABLE.md"}
    assert list(OUTCOMES) == list(odd_images.KINDS)
