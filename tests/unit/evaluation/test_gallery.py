"""The pictures of the report: which, in which order, and what is in their files."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from drawn_images import decoded, oriented
from listed_inputs import put, read_from
from PIL import Image

from job.evaluation import gallery
from job.evaluation.label_errors import Suspect
from job.evaluation.scores import Scores

if TYPE_CHECKING:
    from pathlib import Path

    from job.data.manifest import Manifest


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Return a manifest: a/0, a/1, a/2, b/3, b/4, b/5."""
    listed, _ = read_from(put(tmp_path, [f"{'ab'[n // 3]}/{n}.jpg" for n in range(6)]))
    return listed


def scored(split: str, rows: list[int], second: list[float]) -> Scores:
    """Return scores from the probabilities of the second label."""
    probabilities = np.array([[1 - p, p] for p in second], np.float32)
    return Scores(split=split, rows=np.array(rows), probabilities=probabilities, loss=1.0, accuracy=0.5)


def opened(picture: object) -> Image.Image:
    """Decode a picture of the gallery."""
    assert isinstance(picture, str)
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    image.load()
    return image


def test_most_confident_mistakes(manifest: Manifest) -> None:
    """Only mistakes, of both splits, the most confident first; equally confident ones in the order of their URIs."""
    scores = {
        "validation": scored("validation", [2, 1, 3], [0.75, 0.75, 0.9]),
        "test": scored("test", [0, 4], [0.25, 0.0625]),
    }

    found = gallery.most_confident_mistakes(scores, manifest, 24)

    assert [(4, "test", 0, 0.9375), (1, "validation", 1, 0.75), (2, "validation", 1, 0.75)] == [tuple(m) for m in found]
    assert found[:2] == gallery.most_confident_mistakes(scores, manifest, 2)
    assert [] == gallery.most_confident_mistakes(scores, manifest, 0)


def test_document(manifest: Manifest) -> None:
    """Each mistake has its picture and its heatmap, each suspect its picture; all of it is plain JSON."""
    mistakes = gallery.most_confident_mistakes({"test": scored("test", [0, 4], [0.75, 0.0625])}, manifest, 24)
    suspects = [Suspect(row=3, split="train", suggested=0, probability=0.125, suggested_probability=0.875)]
    pixels = [np.full((32, 32, 3), shade, np.uint8) for shade in (10, 100, 200)]
    heatmaps = [np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32)]

    document = gallery.document(manifest, mistakes, suspects, pixels, heatmaps)

    assert document == json.loads(json.dumps(document))
    [first, second], [suspect] = document["mistakes"], document["label_errors"]
    assert {"uri", "split", "label", "prediction", "probability", "picture", "heatmap"} == set(first)
    assert (manifest.uri(4), "test", "b", "a", 0.9375) == tuple(first.values())[:5]
    assert (manifest.uri(0), "a", "b") == (second["uri"], second["label"], second["prediction"])
    assert manifest.uri(3) == suspect["uri"]
    shades = [np.asarray(opened(item["picture"])).mean() for item in (first, second, suspect)]
    assert pytest.approx([10, 100, 200], abs=2) == shades
    assert np.asarray(opened(first["heatmap"])).std() > np.asarray(opened(first["picture"])).std() + 10


def test_pictures_have_no_metadata() -> None:
    """A picture with EXIF (where GPS is) is encoded upright, as it was decoded, and without any metadata."""
    pixels = decoded(oriented("JPEG", 6, "<"), 48)

    image = opened(gallery.encoded(pixels))

    assert ("JPEG", (48, 48)) == (image.format, image.size)
    assert {} == dict(image.getexif())
    assert not {"exif", "xmp", "icc_profile", "comment"} & set(image.info)
    assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 20


@pytest.mark.parametrize("size", [32, 224, 1024])
def test_pictures_are_small(size: int) -> None:
    """A picture has at most 224 pixels a side, and even noise takes few bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)

    picture = gallery.encoded(noise)

    assert (min(size, 224),) * 2 == opened(picture).size
    assert len(picture) <= 4 / 3 * gallery.PICTURE_BYTES + 4


def test_overlay() -> None:
    """Where the heatmap is strong the picture is bright and yellow, where it is zero it is dark."""
    pixels = np.full((64, 64, 3), 100, np.uint8)
    heatmap = np.zeros((2, 2), np.float32)
    heatmap[0, 0] = 1

    shown = gallery.overlaid(pixels, heatmap)

    assert (pixels.shape, np.uint8) == (shown.shape, shown.dtype)
    assert shown[2, 2].tolist() == [176, 178, 132]
    assert np.abs(shown[-2, -2].astype(int) - [50, 50, 52]).max() <= 5
