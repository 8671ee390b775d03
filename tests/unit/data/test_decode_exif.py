"""The orientation of an image, read by the served model as by the header gate."""

from __future__ import annotations

import pytest
import tensorflow as tf
from drawn_images import EXIF_SAMPLES, MAX_PIXELS, oriented
from hypothesis import given
from hypothesis import strategies as st

from job.data import decode_exif, image_header
from job.data.quarantine import UnreadableImage

served_orientation = tf.function(decode_exif.orientation, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_the_graph(image_format: str, orientation: int, order: str) -> None:
    """The served model finds the orientation in either byte order, wherever a format keeps its EXIF."""
    assert orientation == served_orientation(oriented(image_format, orientation, order)).numpy()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a file with EXIF and change bytes in it, mostly around the EXIF block."""
    data = bytearray(draw(st.sampled_from(EXIF_SAMPLES)))
    around = draw(st.sampled_from([0, data.lower().index(b"exif")]))
    for _ in range(draw(st.integers(1, 3))):
        at = min(len(data), max(0, around - 40 + draw(st.integers(0, 120))))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3) | st.sampled_from([b"\xff", b"\0", b"\6"]))
    return bytes(data)


@given(damaged())
def test_orientation_in_the_graph_is_the_headers(data: bytes) -> None:
    """However a file is damaged, the served model turns it as training does, if the header gate takes it at all."""
    try:
        expected = image_header.read_header(data, max_pixels=MAX_PIXELS).orientation
    except UnreadableImage:
        return

    assert expected == served_orientation(data).numpy()


@pytest.mark.parametrize("length", range(30))
@pytest.mark.parametrize("beginning", [b"RIFF", b"RIFF____WEBPVP8X", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"])
def test_short_files(beginning: bytes, length: int) -> None:
    """A file that ends in its header has no orientation, and is no error of the parser: the decoder reports it."""
    assert 1 == served_orientation((beginning + b"\0Exif")[:length]).numpy()
