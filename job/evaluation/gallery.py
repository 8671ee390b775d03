"""report/gallery.json: the most confident mistakes and the most suspicious labels, as pictures.

The pictures are the decoded pixels that the model saw, encoded again: nothing of the files' metadata (EXIF, GPS) is
left in them.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from job.data import contact_sheet
from job.training import augmentation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from job.config.settings import Settings
    from job.data.dataset import Dataset
    from job.data.manifest import Manifest
    from job.evaluation.label_errors import Suspect
    from job.evaluation.scores import Scores

SIDE = 224
"""Largest side of a picture, in pixels."""

PICTURE_BYTES = 14_000
"""A picture that takes more is encoded again with a lower quality: 72 pictures then take 1.4 MB of the report."""

_QUALITIES = (80, 60, 40, 20)

_SHEET_QUALITY = 70
"""Of the sheet of augmented images: even noise then takes less than 0.4 MB of the report."""

_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
"""Of a heatmap, from 0 to 1: five points of matplotlib's colour map inferno, which prints well in gray."""


class Mistake(NamedTuple):
    """A held-out image that the model labels wrongly.

    Attributes:
        row: of the manifest.
        split: "validation" or "test".
        prediction: number of the predicted label.
        probability: of that label.
    """

    row: int
    split: str
    prediction: int
    probability: float


def most_confident_mistakes(scores: Mapping[str, Scores], manifest: Manifest, limit: int) -> list[Mistake]:
    """Return at most `limit` mistakes: the most confident first, equal ones in the order of their URIs."""
    found = []
    for scored in scores.values():
        predictions = scored.probabilities.argmax(axis=1)
        confidences = scored.probabilities.max(axis=1)
        for n in np.flatnonzero(predictions != manifest.label[scored.rows]).tolist():
            row = int(scored.rows[n])
            found.append(Mistake(row, scored.split, int(predictions[n]), float(confidences[n])))
    return sorted(found, key=lambda mistake: (-mistake.probability, manifest.uri(mistake.row)))[:limit]


def document(
    manifest: Manifest,
    mistakes: Sequence[Mistake],
    suspects: Sequence[Suspect],
    pixels: Iterable[NDArray[Any]],
    heatmaps: Iterable[NDArray[Any]],
) -> dict[str, object]:
    """Return gallery.json.

    Args:
        manifest: the images.
        mistakes: to show.
        suspects: the suspected label errors to show.
        pixels: of the mistakes, then of the suspects, each uint8 [size, size, 3].
        heatmaps: of the mistakes, each float32 [height, width], 0 to 1.
    """
    shown = iter(pixels)
    return {
        "mistakes": list(_mistakes(manifest, mistakes, shown, heatmaps)),
        "label_errors": [
            suspect.document(manifest) | {"picture": encoded(picture)}
            for suspect, picture in zip(suspects, shown, strict=True)
        ],
    }


def augmented(settings: Settings, images: Dataset, train: NDArray[Any]) -> dict[str, object]:
    """Return training images as they are and as they are trained on, for gallery.json: one picture of them all.

    Args:
        settings: of the run, with augmentation.
        images: the data.
        train: rows of the training split, int [n].
    """
    rows = train[contact_sheet.in_turn(images.manifest.label[train])]
    versions = augmentation.examples_of(settings, rows, images.pixels(rows), contact_sheet.VERSIONS)
    file = io.BytesIO()
    contact_sheet.augmented_sheet(versions).save(file, "JPEG", quality=_SHEET_QUALITY)
    uris = [images.manifest.uri(row) for row in rows.tolist()]
    return {"picture": base64.b64encode(file.getvalue()).decode(), "uris": uris}


def _mistakes(
    manifest: Manifest,
    mistakes: Sequence[Mistake],
    pixels: Iterator[NDArray[Any]],
    heatmaps: Iterable[NDArray[Any]],
) -> Iterator[dict[str, object]]:
    for mistake, heatmap in zip(mistakes, heatmaps, strict=True):
        picture = next(pixels)
        yield {
            "uri": manifest.uri(mistake.row),
            "split": mistake.split,
            "label": manifest.labels[manifest.label[mistake.row]],
            "prediction": manifest.labels[mistake.prediction],
            "probability": float(f"{mistake.probability:.9g}"),
            "picture": encoded(picture),
            "heatmap": encoded(overlaid(picture, heatmap)),
        }


def overlaid(pixels: NDArray[Any], heatmap: NDArray[Any]) -> NDArray[Any]:
    """Return a picture under its heatmap in colours, uint8 [size, size, 3].

    Args:
        pixels: uint8 [size, size, 3].
        heatmap: float32 [height, width], 0 to 1.
    """
    height, width = pixels.shape[:2]
    enlarged = np.asarray(Image.fromarray(heatmap.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))
    strength = np.clip(enlarged, 0, 1)
    points = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(strength, points, channel) for channel in _COLOURS.T], axis=-1)
    gray = pixels.mean(axis=-1, keepdims=True)
    blended: NDArray[Any] = np.rint(0.5 * gray + 0.5 * colours).astype(np.uint8)
    return blended


def encoded(pixels: NDArray[Any]) -> str:
    """Return a picture, uint8 [height, width, 3], as a JPEG of at most `SIDE` pixels, in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE))
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= PICTURE_BYTES:
            break
    return base64.b64encode(file.getvalue()).decode()
