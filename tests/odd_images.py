"""Odd image files, built byte by byte: every kind that decoders' own test suites and real buckets are known to hold.

`KINDS` and `MORE` have each of them with what the job must make of it. The files are tiny, and the same on every call.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from job.data.image_header import Header

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.data.image_header import Format
    from job.data.quarantine import Reason

WIDTH, HEIGHT = 48, 32
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True)
class Odd:
    """One kind.

    Attributes:
        build: returns the file.
        header: what the header gate makes of it: a header, or the reason of a refusal.
        decodes: whether the pixels behind an accepted header are whole; if not, the file is "corrupt".
        warning: what libjpeg warns about in a file that decodes; empty if nothing.
    """

    build: Callable[[], bytes]
    header: Header | Reason
    decodes: bool = True
    warning: str = ""

    @property
    def verdict(self) -> Header | Reason:
        """What the job makes of the file: a header, or the reason of its quarantine."""
        return self.header if self.decodes else "corrupt"


# -- writers ---------------------------------------------------------------------------------------------------------


def encode(image_format: str, mode: str = "RGB", **options: object) -> bytes:
    """Encode noise with Pillow."""
    file = io.BytesIO()
    _noise(mode).save(file, image_format, **options)
    return file.getvalue()


def animation(image_format: str, mode: str = "RGB") -> bytes:
    """Encode three frames."""
    others = [_noise(mode, seed) for seed in (2, 3)]
    return encode(image_format, mode, save_all=True, append_images=others)


@cache
def _noise(mode: str, seed: int = 1) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8)
    return Image.fromarray(colours, "RGBA").convert(mode)


def segment(marker: int, payload: bytes) -> bytes:
    """Write a JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload


def chunk(kind: bytes, payload: bytes) -> bytes:
    """Write a PNG chunk."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def exif(orientation: int) -> bytes:
    """Write an EXIF block with an orientation."""
    return b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHxxI", 1, 0x0112, 3, 1, orientation, 0)


def jpeg(*segments: bytes, mode: str = "RGB", **options: object) -> bytes:
    """Write a JPEG with segments before all others."""
    plain = encode("JPEG", mode, **options)
    return plain[:2] + b"".join(segments) + plain[2:]


def png(
    bits: int, colour: int, *chunks: bytes, size: tuple[int, int] = (WIDTH, HEIGHT), interlace: bool = False
) -> bytes:
    """Write a PNG of noise with chunks before its pixels."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2}[colour]
    random, rows = np.random.default_rng(1), []
    for left, top, across, down in ADAM7 if interlace else ((0, 0, 1, 1),):
        width, height = (size[0] - left + across - 1) // across, (size[1] - top + down - 1) // down
        rows += [b"\0" + random.bytes((width * channels * bits + 7) // 8) for _ in range(height)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlace))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + pixels + chunk(b"IEND", b"")


def tiff_of_16_bits() -> bytes:
    """Write a TIFF of one strip, 2 x 1 pixels, 16 bits a sample."""
    short, long = 3, 4
    entries = [
        *((256, short, 1, 2), (257, short, 1, 1), (258, short, 3, 122), (259, short, 1, 1), (262, short, 1, 2)),
        *((273, long, 1, 128), (277, short, 1, 3), (278, short, 1, 1), (279, long, 1, 12)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    bits, pixels = struct.pack("<HHH", 16, 16, 16), bytes(range(12))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + bits + pixels


# -- damage ----------------------------------------------------------------------------------------------------------


def after_frame_header(data: bytes, payload: bytes) -> bytes:
    """Put a segment behind a JPEG's frame header."""
    at = data.index(b"\xff\xc0")
    end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:end] + payload + data[end:]


def scan(data: bytes) -> int:
    """Return where the pixels of a JPEG begin."""
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def of_16_bit_tables() -> bytes:
    """Write a JPEG whose quantisation tables have 16 bits a value, as its frame header allows."""
    data = jpeg(quality=1)
    tables = re.compile(rb"\xff\xdb\0\x43([\0\1])(.{64})", re.DOTALL)
    assert len(tables.findall(data)) == 2
    wide = tables.sub(lambda table: segment(0xDB, bytes([0x10 | table[1][0]]) + struct.pack(">64H", *table[2])), data)
    return wide.replace(b"\xff\xc0", b"\xff\xc1", 1)


def of_12_bits() -> bytes:
    """Write a JPEG whose frame header says 12 bits a sample."""
    return jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1)


def with_bad_code() -> bytes:
    """Write a JPEG with sixteen ones in its pixels: no Huffman code."""
    data = jpeg()
    middle = (scan(data) + len(data)) // 2
    return data[:middle] + b"\xff\0\xff\0\xff\0" + data[middle:]


def with_wrong_restarts(keep: float) -> bytes:
    """Write a JPEG whose restart markers come in a wrong order, up to a part of its pixels."""
    data = jpeg(restart_marker_blocks=1)
    pixels = re.sub(rb"\xff[\xd1\xd2]", lambda marker: b"\xff" + bytes([marker[0][1] ^ 7]), data[scan(data) :])
    return data[: scan(data)] + pixels[: int(keep * len(pixels))]


def without_middle(data: bytes) -> bytes:
    """Leave out the second half of a JPEG's pixels, up to the end marker."""
    return data[: (scan(data) + len(data)) // 2] + data[-2:]


def with_zeros(data: bytes) -> bytes:
    """Overwrite a part of a JPEG's pixels with zeros, as a damaged disk returns them."""
    start = (scan(data) + len(data)) // 2
    return data[:start] + bytes(200) + data[start + 200 :]


def with_bad_index() -> bytes:
    """Write a JPEG with a second picture behind it, and with an index of the two (MPF) that is garbage."""
    return jpeg(segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff\xff\xff")) + jpeg()


def ultra_hdr() -> bytes:
    """Write a JPEG that ends where its pixels would begin, behind the description of a gain map."""
    data = jpeg(
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta hdrgm:Version='1.0'/>"), segment(0xE2, b"MPF\0")
    )
    return data[: scan(data)]


def bomb() -> bytes:
    """Write a GIF of 32 x 32 pixels whose one frame has 65535 x 10537."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, 0xFFFF, 10537, 5)
    return b"GIF89a" + struct.pack("<HHBBB", 32, 32, 0, 0, 0) + frame + b"\0\x8f"


def huge() -> bytes:
    """Write a valid PNG of 20000 x 20000 pixels, one bit each."""
    rows = zlib.compress(bytes(20000 * (1 + 20000 // 8)), 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_wrong_checksum() -> bytes:
    """Write a PNG whose pixels do not fit their checksum."""
    data = png(1, 0)
    return data[:-13] + bytes([data[-13] ^ 1]) + data[-12:]


# -- the kinds -------------------------------------------------------------------------------------------------------


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _size(image_format: Format, orientation: int = 1) -> Header:
    return Header(image_format, WIDTH, HEIGHT, orientation)


KINDS: dict[str, Odd] = {
    "exif_landscape_2_mirrored.jpg": Odd(lambda: jpeg(segment(0xE1, b"Exif\0\0" + exif(2))), _size("jpeg", 2)),
    "exif_portrait_8.jpg": Odd(lambda: jpeg(segment(0xE1, b"Exif\0\0" + exif(8))), _size("jpeg", 8)),
    "ljt_12bit.jpg": Odd(of_12_bits, "unsupported_format"),
    "ljt_baseline_good.jpg": Odd(jpeg, _size("jpeg")),
    "made_1x1.png": Odd(lambda: png(8, 2, size=(1, 1)), Header("png", 1, 1, 1)),
    "made_gif_named.jpg": Odd(lambda: encode("GIF", "P"), _size("gif")),
    "made_half.jpg": Odd(lambda: jpeg()[: len(jpeg()) * 3 // 4], _size("jpeg"), decodes=False),
    "made_html_404.jpg": Odd(
        lambda: b"<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1></body></html>", "not_an_image"
    ),
    "made_huge_1bit_20000x20000.png": Odd(huge, "too_large"),
    "made_png_named.jpg": Odd(lambda: encode("PNG"), _size("png")),
    "made_s3_access_denied.jpg": Odd(
        lambda: b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "not_an_image"
    ),
    "made_trailing_garbage.jpg": Odd(lambda: jpeg() + b"garbage\xff\xd8\xff\xe0", _size("jpeg")),
    "made_webp_named.jpg": Odd(lambda: encode("WEBP"), _size("webp")),
    "pil_16bit_qtables.jpg": Odd(of_16_bit_tables, _size("jpeg")),
    "pil_16bit_rgb.tiff": Odd(tiff_of_16_bits, "unsupported_format"),
    "pil_animated.webp": Odd(lambda: animation("WEBP", "RGBA"), _size("webp")),
    "pil_apng.png": Odd(lambda: animation("PNG", "RGBA"), _size("png")),
    "pil_bomb.gif": Odd(bomb, "too_large"),
    "pil_broken.png": Odd(lambda: b"\x89PNG\r\n\x1a\n" + np.random.default_rng(1).bytes(72), "corrupt"),
    "pil_cmyk.jpg": Odd(lambda: jpeg(mode="CMYK"), _size("jpeg")),
    "pil_decompression_dos.png": Odd(
        lambda: png(8, 2, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(4_000_000))) * 2, size=(1, 1)),
        Header("png", 1, 1, 1),
    ),
    "pil_gray.jpg": Odd(lambda: jpeg(mode="L"), _size("jpeg")),
    "pil_icc_after_sof.jpg": Odd(
        lambda: after_frame_header(jpeg(mode="L"), segment(0xE2, b"ICC_PROFILE\0\1\1profile")), _size("jpeg")
    ),
    "pil_mpo_named_jpg.jpg": Odd(with_bad_index, _size("jpeg")),
    "pil_orientation6_webp.webp": Odd(lambda: encode("WEBP", exif=exif(6)), _size("webp", 6)),
    "pil_photo.avif": Odd(lambda: b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "unsupported_format"),
    "pil_photo.bmp": Odd(lambda: encode("BMP"), _size("bmp")),
    "pil_photo.webp": Odd(lambda: encode("WEBP", exif=exif(1)), _size("webp")),
    "pil_transparent.gif": Odd(lambda: encode("GIF", "P", transparency=3), _size("gif")),
    "pil_truncated_app14.jpg": Odd(lambda: jpeg(segment(0xEE, b"Adobe\0d\0\0\0\0")), _size("jpeg")),
    "pil_truncated_end_chunk.png": Odd(lambda: encode("PNG")[:-6], _size("png"), decodes=False),
    "pil_truncated_jpeg.jpg": Odd(lambda: jpeg(progressive=True)[:-100], _size("jpeg"), decodes=False),
    "pil_ultrahdr.jpg": Odd(ultra_hdr, _size("jpeg"), decodes=False),
    "png_bad_colour_type.png": Odd(lambda: png(8, 0).replace(b"\x08\0\0\0\0", b"\x08\1\0\0\0", 1), "corrupt"),
    "png_bad_crc_idat.png": Odd(with_wrong_checksum, _size("png"), decodes=False),
    "png_gray1.png": Odd(lambda: png(1, 0), _size("png")),
    "png_gray16.png": Odd(lambda: png(16, 0), _size("png")),
    "png_interlaced_gray_alpha.png": Odd(lambda: png(8, 4, interlace=True), _size("png")),
    "png_missing_idat.png": Odd(
        lambda: re.sub(rb"....IDAT.*(?=....IEND)", b"", png(1, 0), flags=re.DOTALL), _size("png"), decodes=False
    ),
    "png_palette_alpha.png": Odd(
        lambda: png(8, 3, chunk(b"PLTE", bytes(range(256)) * 3), chunk(b"tRNS", bytes(range(256)))), _size("png")
    ),
    "png_rgb16.png": Odd(lambda: png(16, 2), _size("png")),
    "tf_bad_huffman.jpg": Odd(with_bad_code, _size("jpeg"), warning="Corrupt JPEG data: bad Huffman code"),
    "tf_cmyk.jpg": Odd(lambda: jpeg(mode="CMYK", quality=30), _size("jpeg")),
    "tf_corrupt34_2.jpg": Odd(lambda: with_wrong_restarts(0.1), _size("jpeg"), decodes=False),
    "tf_corrupt34_3.jpg": Odd(lambda: with_wrong_restarts(0.8), _size("jpeg"), decodes=False),
}
"""By the name of a real file of the kind in ``../shared/data/bad_images``."""

_CORRUPT = "Corrupt JPEG data: "
MORE: dict[str, Odd] = {
    "jpeg_without_end.jpg": Odd(lambda: jpeg()[:-2], _size("jpeg"), decodes=False),
    "jpeg_ends_early.jpg": Odd(
        lambda: without_middle(jpeg()), _size("jpeg"), warning=_CORRUPT + "premature end of data segment"
    ),
    "jpeg_bytes_before_end.jpg": Odd(
        lambda: jpeg()[:-2] + b"abcdef\xff\xd9",
        _size("jpeg"),
        warning=_CORRUPT + "4 extraneous bytes before marker 0xd9",
    ),
    "jpeg_zeros.jpg": Odd(lambda: with_zeros(jpeg()), _size("jpeg"), warning=_CORRUPT),
    "jpeg_wrong_restarts.jpg": Odd(
        lambda: with_wrong_restarts(1), _size("jpeg"), warning=_CORRUPT + "found marker 0xd6 instead of RST1"
    ),
    "jpeg_jfif_2.jpg": Odd(
        lambda: jpeg().replace(b"JFIF\0\1\1", b"JFIF\0\2\1"),
        _size("jpeg"),
        warning="unknown JFIF revision number 2.01",
    ),
    "png_half.png": Odd(lambda: _half(encode("PNG")), _size("png"), decodes=False),
    "png_half_animation.png": Odd(lambda: _half(animation("PNG", "RGBA")), _size("png"), decodes=False),
    "png_trailing_garbage.png": Odd(lambda: encode("PNG") + b"garbage", _size("png")),
    "gif_half.gif": Odd(lambda: _half(encode("GIF", "P")), _size("gif"), decodes=False),
    "gif_without_end.gif": Odd(lambda: encode("GIF", "P")[:-1], _size("gif")),
    "gif_half_animation.gif": Odd(lambda: _half(animation("GIF", "P")), _size("gif")),
    "gif_trailing_garbage.gif": Odd(lambda: encode("GIF", "P") + b"garbage", _size("gif")),
    "webp_half.webp": Odd(lambda: _half(encode("WEBP")), _size("webp"), decodes=False),
    "webp_half_animation.webp": Odd(lambda: _half(animation("WEBP", "RGBA")), _size("webp"), decodes=False),
    "webp_trailing_garbage.webp": Odd(lambda: encode("WEBP") + b"garbage", _size("webp")),
    "bmp_half.bmp": Odd(lambda: _half(encode("BMP")), _size("bmp"), decodes=False),
    "bmp_trailing_garbage.bmp": Odd(lambda: encode("BMP") + b"garbage", _size("bmp")),
}
"""Further kinds, most of them cut or with more bytes than an image has."""

ALL = KINDS | MORE
"""Every kind, by the name of a file."""

WHAT = {
    "exif_landscape_2_mirrored.jpg": "JPEG that EXIF mirrors (orientation 2)",
    "exif_portrait_8.jpg": "JPEG that EXIF rotates (orientation 8)",
    "ljt_12bit.jpg": "JPEG with 12 bits a sample",
    "ljt_baseline_good.jpg": "baseline JPEG",
    "made_1x1.png": "PNG of one pixel",
    "made_gif_named.jpg": "GIF that is called .jpg",
    "made_half.jpg": "JPEG that is cut off",
    "made_html_404.jpg": "HTML page that is called .jpg",
    "made_huge_1bit_20000x20000.png": "PNG of 400 megapixels",
    "made_png_named.jpg": "PNG that is called .jpg",
    "made_s3_access_denied.jpg": "error message of an object store that is called .jpg",
    "made_trailing_garbage.jpg": "JPEG with other bytes after its end",
    "made_webp_named.jpg": "WebP that is called .jpg",
    "pil_16bit_qtables.jpg": "JPEG with quantization tables of 16 bits",
    "pil_16bit_rgb.tiff": "TIFF",
    "pil_animated.webp": "animated WebP with alpha",
    "pil_apng.png": "animated PNG",
    "pil_bomb.gif": "small GIF that claims a huge canvas",
    "pil_broken.png": "PNG with a broken header chunk",
    "pil_cmyk.jpg": "CMYK JPEG, inverted as Adobe writes it",
    "pil_decompression_dos.png": "PNG whose compressed texts grow enormously",
    "pil_gray.jpg": "gray JPEG",
    "pil_icc_after_sof.jpg": "JPEG with its colour profile after the frame header",
    "pil_mpo_named_jpg.jpg": "several pictures in one JPEG (MPO) with a bad index",
    "pil_orientation6_webp.webp": "WebP that EXIF rotates (orientation 6)",
    "pil_photo.avif": "AVIF",
    "pil_photo.bmp": "BMP",
    "pil_photo.webp": "WebP",
    "pil_transparent.gif": "GIF with a transparent colour",
    "pil_truncated_app14.jpg": "JPEG with a short segment of Adobe's",
    "pil_truncated_end_chunk.png": "PNG whose last chunk is cut off",
    "pil_truncated_jpeg.jpg": "progressive JPEG that is cut off near its end",
    "pil_ultrahdr.jpg": "JPEG whose pixels are cut off before an appended gain map (Ultra HDR)",
    "png_bad_colour_type.png": "PNG of a colour type that does not exist",
    "png_bad_crc_idat.png": "PNG whose pixels have a wrong checksum",
    "png_gray1.png": "gray PNG of 1 bit",
    "png_gray16.png": "gray PNG of 16 bits",
    "png_interlaced_gray_alpha.png": "interlaced gray PNG with alpha",
    "png_missing_idat.png": "PNG without pixels",
    "png_palette_alpha.png": "PNG with a palette with alpha",
    "png_rgb16.png": "PNG of 16 bits a colour",
    "tf_bad_huffman.jpg": "JPEG with an invalid Huffman code",
    "tf_cmyk.jpg": "CMYK JPEG, strongly compressed",
    "tf_corrupt34_2.jpg": "JPEG with restart markers in a wrong order, near its beginning",
    "tf_corrupt34_3.jpg": "JPEG with restart markers in a wrong order, near its end",
    "jpeg_without_end.jpg": "JPEG without its end marker",
    "jpeg_ends_early.jpg": "JPEG whose pixels end before its end marker",
    "jpeg_bytes_before_end.jpg": "JPEG with other bytes before its end marker",
    "jpeg_zeros.jpg": "JPEG with zeros in its pixels",
    "jpeg_wrong_restarts.jpg": "JPEG with restart markers in a wrong order, whole",
    "jpeg_jfif_2.jpg": "JPEG of a JFIF version that does not exist",
    "png_half.png": "PNG that is cut off",
    "png_half_animation.png": "animated PNG that is cut off after its first frame",
    "png_trailing_garbage.png": "PNG with other bytes after its end",
    "gif_half.gif": "GIF that is cut off in its first frame",
    "gif_without_end.gif": "GIF without its end marker",
    "gif_half_animation.gif": "animated GIF that is cut off after its first frame",
    "gif_trailing_garbage.gif": "GIF with other bytes after its end",
    "webp_half.webp": "WebP that is cut off",
    "webp_half_animation.webp": "animated WebP that is cut off after its first frame",
    "webp_trailing_garbage.webp": "WebP with other bytes after its end",
    "bmp_half.bmp": "BMP that is cut off",
    "bmp_trailing_garbage.bmp": "BMP with other bytes after its end",
}
"""What each kind is, for docs/images.md."""
