"""The header gate: format, size and orientation from the bytes alone, and a clear answer for everything else."""

from __future__ import annotations

import io
import itertools
import struct
import typing

import odd_images
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_images import chunk, segment
from PIL import Image

from job.data import image_header
from job.data.quarantine import REASONS, Reason, UnreadableImage

MAX_PIXELS = 64_000_000
MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "GIF": ("L", "P"),
    "BMP": ("L", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
}


def encode(image_format: str, mode: str = "RGB", size: tuple[int, int] = (30, 20), **options: object) -> bytes:
    """Encode a picture of one colour with Pillow."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, image_format, **options)
    return file.getvalue()


def animation(image_format: str, size: tuple[int, int] = (30, 20)) -> bytes:
    """Encode three frames of different colours."""
    first, *others = (Image.new("RGB", size, colour) for colour in ("red", "green", "blue"))
    file = io.BytesIO()
    first.save(file, image_format, save_all=True, append_images=others)
    return file.getvalue()


def exif(orientation: int, order: str = "<", *, kind: int = 3, count: int = 1, directory: int = 8) -> bytes:
    """Write an EXIF block with a resolution, the orientation and one more entry."""
    entries = ((0x0100, 4, 1, 30), (0x0112, kind, count, orientation), (0x0128, 3, 1, 2))
    packed = (
        struct.pack(order + ("HHIHxx" if field_type == 3 else "HHII"), tag, field_type, field_count, value)
        for tag, field_type, field_count, value in entries
    )
    magic = b"MM\0*" if order == ">" else b"II*\0"
    return magic + struct.pack(order + "I", directory) + struct.pack(order + "H", 3) + b"".join(packed) + bytes(4)


def with_segments(*segments: bytes) -> bytes:
    """Put segments before all others of a JPEG."""
    jpeg = encode("JPEG")
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def read(data: bytes, max_pixels: int = MAX_PIXELS) -> image_header.Header:
    """Read with a default limit."""
    return image_header.read_header(data, max_pixels=max_pixels)


def refusal(data: bytes, max_pixels: int = MAX_PIXELS) -> UnreadableImage:
    """Return the refusal that the data must get."""
    with pytest.raises(UnreadableImage) as caught:
        read(data, max_pixels)
    return caught.value


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image_format", "mode"), [(name, mode) for name, modes in MODES.items() for mode in modes])
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_size_is_pillows(image_format: str, mode: str, width: int, height: int) -> None:
    """Format, width and height are those that Pillow reads, for every kind of file that is supported."""
    header = read(encode(image_format, mode, (width, height)))

    assert image_header.Header(image_format.lower(), width, height, 1) == header  # type: ignore[arg-type] # it is a Format


@pytest.mark.parametrize(
    "data",
    [
        encode("JPEG", progressive=True),
        encode("WEBP", lossless=True),
        encode("WEBP", exif=exif(1)),
        animation("GIF"),
        animation("WEBP"),
        animation("PNG"),
    ],
    ids=["progressive JPEG", "lossless WebP", "extended WebP", "animated GIF", "animated WebP", "animated PNG"],
)
def test_size_of_other_kinds(data: bytes) -> None:
    """Progressive, lossless, extended and animated files have their size read too."""
    header = read(data)

    assert (30, 20) == (header.width, header.height)


@pytest.mark.parametrize(
    "before",
    [
        b"\xff\xff\xff",
        b"\0",
        b"garbage\xff\0",
        segment(0xC4, b""),
        segment(0xCC, b""),
        segment(0xFE, b"\xff\xc0 no frame"),
    ],
    ids=["fill bytes", "zero", "garbage", "Huffman table", "arithmetic table", "comment"],
)
def test_jpeg_frame_is_found_where_libjpeg_finds_it(before: bytes) -> None:
    """A JPEG's size is read from the frame header, whatever other segments precede it."""
    header = read(with_segments(before))

    assert (30, 20) == (header.width, header.height)


def test_bmp_with_rows_from_the_top() -> None:
    """A negative height in a BMP means another order of rows, not another size."""
    bmp = encode("BMP")

    assert read(bmp) == read(bmp[:22] + struct.pack("<i", -20) + bmp[26:])


@pytest.mark.parametrize("name", odd_images.ALL)
def test_odd_files(name: str) -> None:
    """Each kind of odd file that decoders' own test suites hold has its header read, or is refused for its reason."""
    kind = odd_images.ALL[name]

    assert kind.header == outcome(kind.build(), MAX_PIXELS)


# -- limits ----------------------------------------------------------------------------------------------------------


def test_limit_is_inclusive() -> None:
    """As many pixels as allowed are read, one more is refused with both figures in the message."""
    png = encode("PNG", size=(30, 20))

    read(png, max_pixels=600)
    error = refusal(png, max_pixels=599)

    assert "too_large" == error.reason
    assert "30 x 20" in error.detail
    assert "599" in error.detail


def test_huge_size_in_a_tiny_file_is_refused() -> None:
    """A header that claims a huge picture is refused without looking at the rest."""
    png = encode("PNG")

    assert "too_large" == refusal(png[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + png[24:]).reason


def test_all_frames_of_a_gif_count() -> None:
    """The decoder holds all frames of a GIF, so their sum is limited, and a first frame larger than the canvas too."""
    gif = animation("GIF", (30, 20))
    at = gif.index(b",\0\0\0\0\x1e\0\x14\0")

    assert "too_large" == refusal(gif, max_pixels=3 * 600 - 1).reason
    assert "too_large" == refusal(gif[: at + 5] + b"\xff\xff\xff\xff" + gif[at + 9 :]).reason
    read(gif, max_pixels=3 * 600)


@pytest.mark.parametrize(
    ("data", "at"),
    [(encode("PNG"), 16), (encode("JPEG"), None), (encode("GIF"), 6), (encode("BMP"), 18), (encode("WEBP"), 26)],
    ids=["png", "jpeg", "gif", "bmp", "webp"],
)
def test_zero_width_is_corrupt(data: bytes, at: int | None) -> None:
    """A picture without pixels is damaged."""
    at = data.index(b"\xff\xc0") + 7 if at is None else at

    assert "corrupt" == refusal(data[:at] + bytes(4) + data[at + 4 :]).reason


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF"),
        (encode("TIFF"), "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"MM\0+\0\x08\0\0", "BigTIFF"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", "JPEG XL"),
        (encode("JPEG2000"), "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (b"8BPS\0\1", "PSD"),
        (encode("ICO"), "ICO"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xef\xbb\xbf <svg/>", "SVG"),
        (encode("BMP", "1"), "BMP with 1 bits"),
        (encode("BMP")[:14] + struct.pack("<IHHHH", 12, 30, 20, 1, 24), "BMP with an OS/2 header"),
        (encode("BMP")[:30] + struct.pack("<I", 1) + encode("BMP")[34:], "compression 1"),
        (encode("JPEG").replace(b"\xff\xc0", b"\xff\xc3"), "lossless"),
        (encode("JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "12 bits"),
        (encode("PNG")[:8] + b"\0\0\0\x04CgBI" + bytes(20), "iOS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_known_but_unsupported(data: bytes, name: str) -> None:
    """An image that cannot be decoded here is called by its name, with what to do."""
    error = refusal(data)

    assert "unsupported_format" == error.reason
    assert name in error.detail
    assert error.detail.endswith("convert to JPEG or PNG")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\n<!DOCTYPE html><html><body>404", "HTML"),
        (b"<HTML><head>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "object store"),
        (b"<?xml version='1.0'?><feed/>", "XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4", "ZIP"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"BM is how this text begins, and it is long enough for a header", "unknown"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "unknown"),
        (bytes(100), "unknown"),
        (b"\xff", "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_not_an_image(data: bytes, what: str) -> None:
    """A file that is no image is described by its actual type, if that is known."""
    error = refusal(data)

    assert "not_an_image" == error.reason
    assert what in error.detail


def test_empty() -> None:
    """A file of zero bytes has a reason of its own."""
    assert "empty" == refusal(b"").reason


@pytest.mark.parametrize(
    "data",
    [
        encode("PNG")[:25] + b"\1" + encode("PNG")[26:],
        encode("PNG")[:24] + b"\3" + encode("PNG")[25:],
        encode("PNG")[:8] + chunk(b"IDAT", bytes(20)),
        encode("GIF")[:13] + b";",
        b"\xff\xd8\xff\xda\0\x08\1\1\0\0\x3f\0 pixels without a frame header",
        encode("JPEG").replace(b"\xff\xc0\0\x11", b"\xff\xc0\0\x12"),
        b"RIFF\x20\0\0\0WEBPICCP" + bytes(30),
    ],
    ids=["colour type", "bits", "first chunk", "no frame", "no frame header", "frame length", "first WebP chunk"],
)
def test_damaged_header(data: bytes) -> None:
    """A header that contradicts its format is damaged."""
    assert "corrupt" == refusal(data).reason


@pytest.mark.parametrize("image_format", MODES)
def test_header_cut_off(image_format: str) -> None:
    """However short a file is cut within its header, it is called unreadable."""
    data = encode(image_format)
    reasons = []
    for length in range(1, len(data)):
        try:
            read(data[:length])
        except UnreadableImage as error:
            reasons.append(error.reason)
        else:
            break

    assert "corrupt" == reasons[-1]
    assert {"not_an_image", "corrupt"} == set(reasons)


def test_reasons_are_explained() -> None:
    """Every reason of the closed list has its explanation."""
    assert set(typing.get_args(Reason)) == set(REASONS)


# -- orientation -----------------------------------------------------------------------------------------------------

WRITERS = {
    "JPEG": lambda block: encode("JPEG", exif=b"Exif\0\0" + block),
    "JPEG with other segments before": lambda block: with_segments(
        segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        b"\xff\xff\xff",
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
        segment(0xE2, b"Exif\0\0" + exif(3)),
        segment(0xFE, b"Exif\0\0" + exif(3)),
        segment(0xE1, b"Exif\0\0" + block),
        segment(0xE1, b"Exif\0\0" + exif(3)),
    ),
    "PNG": lambda block: encode("PNG", exif=block),
    "PNG with EXIF behind the pixels": lambda block: (
        encode("PNG")[:-12] + chunk(b"tEXt", b"Comment\0eXIf" + exif(3)) + chunk(b"eXIf", block) + encode("PNG")[-12:]
    ),
    "WebP": lambda block: encode("WEBP", exif=block),
    "lossless WebP with alpha": lambda block: encode("WEBP", "RGBA", (31, 21), exif=block, lossless=True),
    "WebP with a prefix": lambda block: encode("WEBP", exif=b"Exif\0\0" + block),
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(writer: str, order: str, orientation: int) -> None:
    """All orientations are read in all formats that have them, in both byte orders, as Pillow reads them."""
    data = WRITERS[writer](exif(orientation, order))

    assert orientation == read(data).orientation
    assert orientation == Image.open(io.BytesIO(data)).getexif().get(0x0112)


@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        exif(256 + 6, ">"),
        exif(6, kind=4),
        exif(6, count=2),
        exif(6, directory=7),
        exif(6, directory=2**32 - 1),
        exif(6).replace(b"II*", b"II+"),
        exif(6)[:30],
        exif(6)[:9],
        b"MM\0*",
        b"",
    ],
    ids=[
        "0",
        "9",
        "262",
        "LONG",
        "two",
        "offset",
        "far offset",
        "magic",
        "cut entry",
        "cut count",
        "cut header",
        "none",
    ],
)
@pytest.mark.parametrize("writer", ["JPEG with other segments before", "PNG with EXIF behind the pixels", "WebP"])
def test_invalid_orientation_counts_as_none(writer: str, block: bytes) -> None:
    """An EXIF block that is not as the standard wants it turns nothing."""
    if block or writer != "WebP":  # Pillow writes no empty block
        assert 1 == read(WRITERS[writer](block)).orientation


def test_exif_behind_the_frame_header_does_not_count() -> None:
    """EXIF belongs before the picture: that of an embedded second picture is not taken for the first one's."""
    jpeg = encode("JPEG")
    at = jpeg.index(b"\xff\xda")

    assert 1 == read(jpeg[:at] + segment(0xE1, b"Exif\0\0" + exif(6)) + jpeg[at:]).orientation
    assert 1 == read(jpeg + with_segments(segment(0xE1, b"Exif\0\0" + exif(6)))).orientation


def test_work_on_a_hostile_file_is_bounded() -> None:
    """EXIF behind more segments than any camera writes is not looked for."""
    app1 = segment(0xE1, b"Exif\0\0" + exif(6))
    empty = segment(0xE2, b"")

    assert 6 == read(with_segments(empty * (image_header.MAX_SEGMENTS - 2), app1)).orientation
    assert 1 == read(with_segments(empty * image_header.MAX_SEGMENTS, app1)).orientation
    assert 1 == read(with_segments(b"\xff" * 1_000_000, app1)).orientation


# -- anything at all -------------------------------------------------------------------------------------------------

SAMPLES = [
    *(WRITERS[writer](exif(6, order)) for writer, order in itertools.product(WRITERS, "<>")),
    encode("GIF"),
    animation("GIF"),
    animation("WEBP"),
    encode("BMP"),
    encode("BMP", "P"),
]
SIGNATURES = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"RIFF____WEBPVP8X",
    b"\0\0\0\x20ftyp",
    b"<?xml",
    b"",
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a real file with bytes changed, taken out or put in, mostly in its header."""
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), draw(st.sampled_from([40, 200, 2000])))))
        data[at : at + draw(st.integers(0, 6))] = draw(st.binary(max_size=6))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


def outcome(data: bytes, max_pixels: int = 10_000) -> image_header.Header | Reason:
    """Return the header, or the reason why there is none."""
    try:
        return read(data, max_pixels=max_pixels)
    except UnreadableImage as error:
        return error.reason


def is_answer(found: image_header.Header | Reason) -> bool:
    """Tell whether this is a reason of the closed list, or a header that keeps the limits."""
    if isinstance(found, str):
        return found in REASONS
    return 0 < found.width * found.height <= 10_000 and 1 <= found.orientation <= 8


@given(st.sampled_from(SIGNATURES), st.binary(max_size=100))
def test_any_bytes_get_an_answer(signature: bytes, rest: bytes) -> None:
    """Any bytes at all give a header or a refusal, never another exception."""
    assert is_answer(outcome(signature + rest))


@given(damaged())
def test_damaged_files_get_an_answer(data: bytes) -> None:
    """A real file, damaged anywhere, gives a header or a refusal, never another exception."""
    assert is_answer(outcome(data))
