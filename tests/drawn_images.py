"""Images drawn, encoded and decoded, upright or turned by their EXIF."""

from __future__ import annotations

import io
import itertools
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job.data import decode, image_header

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_PIXELS = 64_000_000


def picture(mode: str = "RGB", width: int = 24, height: int = 24) -> Image.Image:
    """Draw smooth colours with some noise; alpha takes all values."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    colours = np.stack([across, down, 255 - across, (across + down) / 2], axis=-1)
    noisy = np.clip(colours + np.random.default_rng(7).normal(0, 20, colours.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy, "RGBA").convert(mode)


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Encode with Pillow."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def exif(orientation: int, order: str) -> bytes:
    """Write an EXIF block with one entry before the orientation."""
    magic = b"MM\0*" if order == ">" else b"II*\0"
    entries = struct.pack(order + "HHII", 0x0100, 4, 1, 24) + struct.pack(order + "HHIHxx", 0x0112, 3, 1, orientation)
    return magic + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


def decoded(data: bytes, image_size: int = 24) -> NDArray[Any]:
    """Decode as the pass over the data does."""
    return decode.decode_image(data, image_header.read_header(data, max_pixels=MAX_PIXELS), image_size)


def oriented(image_format: str, orientation: int, order: str) -> bytes:
    """Encode a wide picture that says how it is to be turned."""
    block = exif(orientation, order)
    options: dict[str, object] = {"lossless": True} if image_format == "WEBP" else {}
    if image_format != "JPEG":
        return encode(picture("RGB", 40, 30), image_format, exif=block, **options)
    jpeg = encode(picture("RGB", 40, 30), "JPEG", quality=95)
    xmp, app1 = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>", b"Exif\0\0" + block
    segments = (struct.pack(">HH", 0xFFE1, len(payload) + 2) + payload for payload in (xmp, app1))
    return jpeg[:20] + b"\xff\xff".join([b"", *segments]) + jpeg[20:]


EXIF_SAMPLES = [oriented(*sample) for sample in itertools.product(["JPEG", "PNG", "WEBP"], [6], "<>")]
