"""The header gate: identifies an image file from its bytes, before anything is decoded.

`read_header` detects the format by content, never by name, and reads width, height and EXIF orientation, so that the
decoded size is bounded before memory is spent on it. It rejects what the decoder (`decode`) cannot handle or would
misread. Any input yields a `Header` or raises `UnreadableImage`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from job.data.quarantine import UnreadableImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


Format = Literal["jpeg", "png", "gif", "bmp", "webp"]

MAX_SEGMENTS: Final = 10_000
"""Segments (JPEG) or chunks (PNG, WebP) searched for EXIF: bounds the work that a hostile file can cause."""


@dataclass(frozen=True, slots=True)
class Header:
    """Format, size and orientation of an image."""

    format: Format
    width: int
    """Pixels, before the orientation is applied. For GIF and WebP, of the canvas."""
    height: int
    orientation: int
    """EXIF, 1 to 8; 1 if absent or invalid."""


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Read the header of an encoded image.

    Args:
        data: the whole file.
        max_pixels: the largest width x height that may be decoded; a GIF counts all its frames, since the decoder
            decodes them all.

    Raises:
        UnreadableImage: not an image, an unsupported format, too large, or truncated within the header.
    """
    image_format = _format(data)
    read_size, find_exif = _FORMATS[image_format]
    try:
        width, height, pixels = read_size(data)
    except (IndexError, struct.error):  # a read past the end
        raise UnreadableImage("corrupt", f"the file ends within its {image_format.upper()} header") from None
    if width <= 0 or height <= 0:
        raise UnreadableImage("corrupt", f"the {image_format.upper()} header says {width} x {height} pixels")
    if pixels > max_pixels:
        total = "" if pixels == width * height else f", {pixels:,} in all frames"
        raise UnreadableImage(
            "too_large", f"{width} x {height} pixels{total}: more than input.max_pixels ({max_pixels:,})"
        )
    return Header(image_format, width, height, _orientation(find_exif(data)))


# -- format detection ------------------------------------------------------------------------------------------------

_UNSUPPORTED: Final = (
    (b"II*\0", "TIFF, or a camera's raw format,"),
    (b"MM\0*", "TIFF, or a camera's raw format,"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
)
_FTYP_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"),
}
_OTHER_FILES: Final = (
    (b"%PDF", "a PDF document"),
    (b"<?xml", "an XML document"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for"),
)


_BMP_HEADERS: Final = tuple(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))


def _format(data: bytes) -> Format:
    if not data:
        raise UnreadableImage("empty", "the file has zero bytes")
    if data.startswith(b"\xff\xd8"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    # note: "BM" also begins many texts; the size of the second header distinguishes them
    if data.startswith(b"BM") and data[14:18] in _BMP_HEADERS:
        return "bmp"
    raise _unrecognized(data)


def _unrecognized(data: bytes) -> UnreadableImage:
    """Describe as precisely as possible what the file is instead of a supported image."""
    is_media = data[4:8] == b"ftyp"  # the container of AVIF and HEIF, and of MP4
    for signature, name in _UNSUPPORTED:
        if data.startswith(signature):
            return _unsupported(name)
    if is_media and data[8:12] in _FTYP_BRANDS:
        return _unsupported(_FTYP_BRANDS[data[8:12]])
    text = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<?xml", b"<svg", b"<!--", b"<!doctype svg")) and b"<svg" in text:
        return _unsupported("SVG")
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        description = "an HTML page, perhaps an error page saved in the image's place"
    elif text.startswith((b"<?xml", b"<error")) and b"<error" in text:
        description = "an XML error message of an object store"
    else:
        known = (name for signature, name in _OTHER_FILES if data.startswith(signature))
        description = next(
            known, "a video or another media file" if is_media else f"unknown bytes that begin with {data[:8]!r}"
        )
    return UnreadableImage("not_an_image", f"not an image: {description}")


def _unsupported(name: str) -> UnreadableImage:
    return UnreadableImage("unsupported_format", f"{name} is not supported: convert to JPEG or PNG")


# -- width and height: each returns (width, height, pixels held by the decoder) -------------------------------

# Any marker that has a segment. Like libjpeg, skips fill bytes and garbage before it.
_JPEG_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")
_PNG_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_BMP_BGR_MASKS: Final = (0xFF0000, 0xFF00, 0xFF)


def _jpeg_size(data: bytes) -> tuple[int, int, int]:
    """Source: ITU-T T.81, annex B."""
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        kind = data[marker.end() - 1]
        if kind in {0xD8, 0xD9, 0xDA}:  # start of image, end of image, start of scan
            break
        if 0xC0 <= kind <= 0xCF and kind not in {0xC4, 0xCC}:  # a frame header; not Huffman or arithmetic tables
            length, bits, height, width, components = struct.unpack_from(">HBHHB", data, marker.end())
            if kind not in {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}:  # sequential and progressive, Huffman or arithmetic
                raise _unsupported("lossless or hierarchical JPEG")
            if bits != 8:
                raise _unsupported(f"JPEG with {bits} bits a sample")
            if components == 2:
                raise _unsupported("JPEG with two components")
            if length != 8 + 3 * components:
                raise UnreadableImage("corrupt", "the JPEG frame header has a wrong length")
            return width, height, width * height
        (length,) = struct.unpack_from(">H", data, marker.end())
        position = marker.end() + max(length, 2)
    else:
        raise IndexError
    raise UnreadableImage("corrupt", "the JPEG has no frame header before its pixels")


def _png_size(data: bytes) -> tuple[int, int, int]:
    """Source: W3C PNG, third edition, section 11.2.1."""
    length, kind, width, height, bits, colour = struct.unpack_from(">I4sIIBBxxx", data, 8)
    if kind == b"CgBI":
        raise _unsupported("PNG as Xcode rewrites it for iOS")
    if kind != b"IHDR" or length != 13:
        raise UnreadableImage("corrupt", "the PNG does not begin with its header chunk")
    if bits not in _PNG_DEPTHS.get(colour, ()):
        raise UnreadableImage("corrupt", f"the PNG header says colour type {colour} with {bits} bits: there is no such")
    return width, height, width * height


def _gif_size(data: bytes) -> tuple[int, int, int]:
    """Source: GIF89a. The decoder holds every frame, and a first one as wide and as high as the largest."""
    width, height = struct.unpack_from("<HH", data, 6)
    frames = list(_gif_frames(data))
    if not frames:
        raise UnreadableImage("corrupt", "the GIF has no picture in it, or ends before it")
    widths, heights = zip(*frames, strict=True)
    frame_pixels = sum(frame_width * frame_height for frame_width, frame_height in frames)
    return width, height, max(width * height, max(widths) * max(heights), frame_pixels)


def _gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield width and height of each frame, until the trailer or the end of the data."""

    def skip_colour_table(position: int, flags: int) -> int:
        return position + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    position = skip_colour_table(13, data[10])
    while position + 10 <= len(data) and (kind := data[position]) in b",!":
        if kind == 0x2C:  # ",": an image descriptor, colour table, code size
            width, height, flags = struct.unpack_from("<HHB", data, position + 5)
            yield width, height
            position = skip_colour_table(position + 10, flags) + 1
        else:  # "!": an extension and its label
            position += 2
        while position < len(data) and (length := data[position]):
            position += 1 + length
        position += 1


def _bmp_size(data: bytes) -> tuple[int, int, int]:
    """Source: Microsoft's BITMAPINFOHEADER, BITMAPV4HEADER."""
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        raise _unsupported("BMP with an OS/2 header")
    width, height, bits, compression = struct.unpack_from("<iixxHI", data, 18)
    plain = compression == 0 and bits in {8, 24, 32}
    # note: TensorFlow ignores the masks, and misreads or rejects a 16-bit or run-length-encoded BMP
    if not plain and not (compression == 3 and bits == 32 and struct.unpack_from("<III", data, 54) == _BMP_BGR_MASKS):
        raise _unsupported(f"BMP with {bits} bits a pixel and compression {compression}")
    return width, abs(height), width * abs(height)


def _webp_size(data: bytes) -> tuple[int, int, int]:
    """Source: RFC 9649."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, width_high, height, height_high = struct.unpack_from("<HBHB", data, 24)
        width, height = 1 + (width | width_high << 16), 1 + (height | height_high << 16)
    elif kind == b"VP8L" and data[20] == 0x2F:
        (sizes,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (sizes & 0x3FFF), 1 + (sizes >> 14 & 0x3FFF)
    elif kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, 26))
    elif len(data) < 30:
        raise IndexError
    else:
        raise UnreadableImage("corrupt", "the WebP does not begin with a picture")
    return width, height, width * height


# -- EXIF orientation: `decode_exif.orientation` does the same in TensorFlow; a test compares the two -----------------


def _jpeg_exif(data: bytes) -> bytes:
    """Return the first APP1 segment with EXIF before the first Huffman table, frame or scan header."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        if position + 10 > len(data) or data[position] != 0xFF or data[position + 1] < 0xDB:
            break
        if data[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return data[position + 4 : end]
        position = end
    return b""


def _png_exif(data: bytes) -> bytes:
    """Return the first eXIf chunk; some writers put it after the pixels."""
    position = 8
    for _ in range(MAX_SEGMENTS):
        if position + 12 > len(data):
            break
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"eXIf":
            return data[position + 8 : end]
        position = end + 4  # the checksum
    return b""


def _webp_exif(data: bytes) -> bytes:
    """Return the first EXIF chunk, if the header flags one."""
    if data[12:16] != b"VP8X" or not data[20] & 0x08:
        return b""
    position = 12
    for _ in range(MAX_SEGMENTS):
        if position + 8 > len(data):
            break
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            return data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return b""


def _no_exif(_data: bytes) -> bytes:
    return b""


def _orientation(exif: bytes) -> int:
    """Return the orientation (tag 0x0112, one SHORT) in the first directory of an EXIF block; 1 for anything invalid.

    Source: TIFF 6.0, section 2; Exif 2.32, section 4.6.4.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "big" if tiff.startswith(b"MM\0*") else "little"
    if not tiff.startswith((b"MM\0*", b"II*\0")):
        return 1
    directory = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[directory : directory + 2], order)
    entries = tiff[directory + 2 : directory + 2 + 12 * count]
    tag, one_short = ((0x0112).to_bytes(2, order), (3).to_bytes(2, order) + (1).to_bytes(4, order))
    for start in range(0, len(entries) - 11, 12):
        if entries[start : start + 2] == tag:
            value = int.from_bytes(entries[start + 8 : start + 10], order)
            return value if entries[start + 2 : start + 8] == one_short and 1 <= value <= 8 else 1
    return 1


_FORMATS: Final[dict[Format, tuple[Callable[[bytes], tuple[int, int, int]], Callable[[bytes], bytes]]]] = {
    "jpeg": (_jpeg_size, _jpeg_exif),
    "png": (_png_size, _png_exif),
    "gif": (_gif_size, _no_exif),
    "bmp": (_bmp_size, _no_exif),
    "webp": (_webp_size, _webp_exif),
}
