"""Draws a few images of each class into one picture, as people look at data first."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from job import storage
from job.data import split
from job.observability import log

if TYPE_CHECKING:
    from pathlib import Path

    from job.data.survey import Survey
    from job.storage import OpenStore

SIDE, TEXT, GAP = 112, 18, 4
"""Pixels: a thumbnail's side, the height of a class's name, and what is between them."""

PER_CLASS, MAX_CLASSES = 8, 60


def draw(survey: Survey, open_store: OpenStore, path: Path) -> None:
    """Write the sheet: a row for each class, of many classes the first 60, with the same images each time.

    Args:
        survey: of the images.
        open_store: opens their stores.
        path: the JPEG file.

    Raises:
        errors.AccessError: the store denies access.
        errors.UnavailableError: it does not respond, after all retries.
    """
    manifest = survey.manifest
    usable = np.flatnonzero(survey.usable)
    by_hash = usable[np.argsort(split.hashes(manifest)[usable], kind="stable")]
    labels = manifest.labels[:MAX_CLASSES]
    chosen = {
        (number, column): row
        for number in range(len(labels))
        for column, row in enumerate(by_hash[manifest.label[by_hash] == number][:PER_CLASS].tolist())
    }
    height = len(labels) * (SIDE + TEXT + 2 * GAP) + GAP
    sheet = Image.new("RGB", (PER_CLASS * (SIDE + GAP) + GAP, height), "white")
    drawing, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, label in enumerate(labels):
        count = int((manifest.label[usable] == number).sum())
        text = f"{log.printable(label)}: {count:,} images"
        drawing.text((GAP, number * (SIDE + TEXT + 2 * GAP) + GAP), text, "black", font)
    for (number, column), row in chosen.items():
        thumbnail = _thumbnail(survey, open_store, row)
        top = number * (SIDE + TEXT + 2 * GAP) + TEXT + 2 * GAP
        sheet.paste(thumbnail, (column * (SIDE + GAP) + GAP, top))
    sheet.save(path, "JPEG", quality=85)
    log.get().info("sheet.written", path=str(path), classes=len(labels), images=len(chosen))


def _thumbnail(survey: Survey, open_store: OpenStore, row: int) -> Image.Image:
    """Return a square as the model sees it: upright, squeezed; grey with a cross if it cannot be drawn here."""
    manifest = survey.manifest
    [(_, data)] = open_store(manifest.roots[manifest.root[row]]).read_many([manifest.object(row)])
    try:
        with Image.open(io.BytesIO(b"" if isinstance(data, storage.LostObject) else data)) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))  # a JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        cross = Image.new("RGB", (SIDE, SIDE), "lightgrey")
        ImageDraw.Draw(cross).line((0, 0, SIDE, SIDE), "grey", 2)
        return cross
