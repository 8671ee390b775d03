"""Draws a few images of each class into one picture, as people look at data first; and images with augmentation."""

from __future__ import annotations

import importlib.util
import io
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, features

from job import storage
from job.data import split
from job.observability import log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from job.data.survey import Survey
    from job.storage import OpenStore

SIDE, TEXT, GAP = 112, 18, 4
"""Pixels: a thumbnail's side, the height of a class's name, and what is between them."""

PER_CLASS, MAX_CLASSES = 8, 60
FONT_SIZE, MAX_POINTS = 13, 8

AUGMENTED, VERSIONS = 6, 7
"""Images on a sheet of augmented ones, and versions of each beside the image itself."""


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
    drawing, typeface, spelled = ImageDraw.Draw(sheet), Typeface(), dict[str, str]()
    for number, label in enumerate(labels):
        count = int((manifest.label[usable] == number).sum())
        name = unicodedata.normalize("NFC", log.printable(label))
        if not typeface.can_draw(name):
            spelled[str(number + 1)], name = name, code_points(name)
        text = f"{number + 1}. {name}: {count:,} images"
        drawing.text((GAP, number * (SIDE + TEXT + 2 * GAP) + GAP), text, "black", typeface.font)
    for (number, column), row in chosen.items():
        thumbnail = _thumbnail(survey, open_store, row)
        top = number * (SIDE + TEXT + 2 * GAP) + TEXT + 2 * GAP
        sheet.paste(thumbnail, (column * (SIDE + GAP) + GAP, top))
    sheet.save(path, "JPEG", quality=85)
    log.get().info("sheet.written", path=str(path), classes=len(labels), images=len(chosen))
    if spelled:
        log.get().warning("sheet.names_spelled", names=spelled, note="the font lacks their letters: see the numbers")


def select(survey: Survey, open_store: OpenStore, side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the images for a sheet of augmented ones, always the same: their rows, int [n], and pixels.

    Args:
        survey: of the images.
        open_store: opens their stores.
        side: height and width of the pixels, uint8 [n, side, side, 3].

    Raises:
        errors.AccessError, errors.UnavailableError: as `draw` does.
    """
    usable = np.flatnonzero(survey.usable)
    by_hash = usable[np.argsort(split.hashes(survey.manifest)[usable], kind="stable")]
    rows = by_hash[in_turn(survey.manifest.label[by_hash])]
    return rows, np.stack([np.asarray(_thumbnail(survey, open_store, row, side)) for row in rows.tolist()])


def in_turn(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the positions of the first images for a sheet of augmented ones, int [n], from all labels in turn."""
    rank = np.zeros(len(labels), np.intp)
    for label in np.unique(labels):
        rank[labels == label] = np.arange(np.count_nonzero(labels == label))
    return np.lexsort((labels, rank))[:AUGMENTED]


def augmented_sheet(versions: NDArray[Any]) -> Image.Image:
    """Return a sheet: a row for each image, first as it is, then its versions.

    Args:
        versions: uint8 [images, 1 + versions, size, size, 3].
    """
    images, columns = versions.shape[:2]
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + 2 * GAP, images * (SIDE + GAP) + TEXT + 2 * GAP), "white")
    drawing, font = ImageDraw.Draw(sheet), Typeface().font
    drawing.text((GAP, GAP), "image", "black", font)
    drawing.text((SIDE + 3 * GAP, GAP), "as it is trained on", "black", font)
    for n in range(images):
        for column in range(columns):
            picture = Image.fromarray(versions[n, column]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            left = column * (SIDE + GAP) + (2 * GAP if column else GAP)
            sheet.paste(picture, (left, n * (SIDE + GAP) + TEXT + 2 * GAP))
    return sheet


class Typeface:
    """The font of the names. It draws no box in place of a letter that it does not have.

    DejaVu Sans, which Matplotlib brings along, has Latin, Greek, Cyrillic, Hebrew, Arabic and others, and no Chinese,
    Japanese or Korean. Without Matplotlib, Pillow's own font has the letters of English.

    Attributes:
        font: draws them.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec("matplotlib")
        folders = (found.submodule_search_locations if found else None) or []
        files = [path for folder in folders if (path := Path(folder, "mpl-data/fonts/ttf/DejaVuSans.ttf")).is_file()]
        self.font = ImageFont.truetype(str(files[0]), FONT_SIZE) if files else ImageFont.load_default(FONT_SIZE)
        self._box = self._drawn("\U0010ffff")  # no character: what is drawn in its place
        self._shapes = features.check("raqm") and features.check("fribidi")

    def can_draw(self, text: str) -> bool:
        """Whether every letter has a shape, and those that are written from right to left are put in order."""
        return all(self._has(letter) for letter in {*text})

    def _has(self, letter: str) -> bool:
        if unicodedata.bidirectional(letter) in ("R", "AL") and not self._shapes:
            return False
        return self._drawn(letter) != self._box

    def _drawn(self, letter: str) -> bytes:
        return bytes(self.font.getmask(letter))


def code_points(text: str) -> str:
    """Return a text in letters that every font has: U+732B U+72AC; of a long one the beginning."""
    points = [f"U+{ord(letter):04X}" for letter in text]
    return " ".join(points[:MAX_POINTS] + ["..."] * (len(points) > MAX_POINTS))


def _thumbnail(survey: Survey, open_store: OpenStore, row: int, side: int = SIDE) -> Image.Image:
    """Return a square as the model sees it: upright, squeezed; grey with a cross if it cannot be drawn here."""
    manifest = survey.manifest
    [(_, data)] = open_store(manifest.roots[manifest.root[row]]).read_many([manifest.object(row)])
    try:
        with Image.open(io.BytesIO(b"" if isinstance(data, storage.LostObject) else data)) as image:
            image.draft("RGB", (2 * side, 2 * side))  # a JPEG is decoded at a fraction of its size
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        return Image.alpha_composite(white, upright).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        cross = Image.new("RGB", (side, side), "lightgrey")
        ImageDraw.Draw(cross).line((0, 0, side, side), "grey", 2)
        return cross
