"""A few images of each class in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from listed_inputs import read_from
from odd_images import jpeg
from PIL import Image, ImageChops, ImageDraw, ImageFont, features
from structlog.testing import capture_logs

from job import storage
from job.data.contact_sheet import (
    AUGMENTED,
    GAP,
    PER_CLASS,
    SIDE,
    TEXT,
    Typeface,
    augmented_sheet,
    code_points,
    draw,
    in_turn,
    select,
)
from job.data.survey import survey
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_of_classes(tmp_path: Path) -> None:
    """Each class is a row of at most eight thumbnails, the same ones each time; what is gone is a cross."""
    for label, colour, count in (("red", (255, 0, 0), 10), ("blue", (0, 0, 255), 3)):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (40 + number, 30), colour).save(tmp_path / "in" / label / f"{number}.png")
    (tmp_path / "in/blue/gone.jpg").write_bytes(jpeg())
    found = survey(read_from(tmp_path / "in")[0], storage.open_store, max_pixels=10**6, progress=Progress([]))
    (tmp_path / "in/blue/gone.jpg").unlink()

    draw(found, storage.open_store, tmp_path / "one.jpg")
    draw(found, storage.open_store, tmp_path / "two.jpg")

    assert (tmp_path / "one.jpg").read_bytes() == (tmp_path / "two.jpg").read_bytes()
    with Image.open(tmp_path / "one.jpg") as image:
        sheet = np.asarray(image).astype(int)
    assert (2 * (SIDE + TEXT + 2 * GAP) + GAP, PER_CLASS * (SIDE + GAP) + GAP, 3) == sheet.shape
    centres = [
        [
            sheet[row * (SIDE + TEXT + 2 * GAP) + TEXT + 2 * GAP + SIDE // 4, column * (SIDE + GAP) + GAP + SIDE // 2]
            for column in range(PER_CLASS)
        ]
        for row in range(2)
    ]
    names = [["blue" if c[2] - c[0] > 150 else "red" if c[0] - c[2] > 150 else "other" for c in row] for row in centres]
    assert ["red"] * PER_CLASS == names[1]
    assert {"blue": 3, "other": 5} == {name: names[0].count(name) for name in set(names[0])}


@pytest.mark.parametrize("name", ["cats", "Käfer", "Σκύλος", "кошки", "ქათამი", "😀"])
def test_scripts_that_the_font_has(name: str) -> None:
    """Names in Latin, Greek, Cyrillic and some other scripts are drawn in their letters."""
    assert Typeface().can_draw(name)


@pytest.mark.parametrize("name", ["猫", "ねこ", "개", "หมา", "बिल्ली", "cat 猫"])
def test_scripts_that_it_has_not(name: str) -> None:
    """What would be a box is recognized."""
    assert not Typeface().can_draw(name)


@pytest.mark.parametrize("name", ["כלב", "قطة"])
def test_right_to_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are written from right to left are drawn only where Pillow can put their letters in order."""
    assert (features.check("raqm") and features.check("fribidi")) == Typeface().can_draw(name)

    monkeypatch.setattr(features, "check", lambda _: False)

    assert not Typeface().can_draw(name)


def test_no_boxes(tmp_path: Path) -> None:
    """A name without letters in the font is spelled, and the log has it under the row's number."""
    for label in ("cats", "猫"):
        for number in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("RGB", (40, 30 + number), "white").save(tmp_path / label / f"{number}.png")
    found = survey(read_from(tmp_path)[0], storage.open_store, max_pixels=10**6, progress=Progress([]))

    with capture_logs() as logs:
        draw(found, storage.open_store, tmp_path / "sheet.jpg")

    assert [{"2": "猫"}] == [entry["names"] for entry in logs if entry["event"] == "sheet.names_spelled"]
    top = SIDE + TEXT + 3 * GAP
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        strip = sheet.convert("L").crop((0, top - GAP, sheet.width, top + TEXT))
    expected = Image.new("L", strip.size, "white")
    ImageDraw.Draw(expected).text((GAP, GAP), "2. U+732B: 2 images", "black", Typeface().font)
    assert np.asarray(ImageChops.difference(strip, expected)).mean() < 2


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own font has the letters of English, and boxes for others."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    typeface = Typeface()

    assert isinstance(typeface.font, ImageFont.FreeTypeFont)
    assert (True, False) == (typeface.can_draw("cats"), typeface.can_draw("кошки"))


def test_code_points() -> None:
    """Of a long name the beginning is enough: the number says which it is."""
    assert "U+732B U+1F600" == code_points("猫😀")
    assert "U+732B " * 8 + "..." == code_points("猫" * 9)


def test_images_from_all_labels_in_turn() -> None:
    """The sheet of augmented images has some of each label, as far as there is room."""
    labels = np.array([2, 0, 0, 0, 1, 2, 0])

    assert [1, 4, 0, 2, 5, 3] == in_turn(labels).tolist()
    assert AUGMENTED == len(in_turn(np.arange(100)))


def test_selected_images(tmp_path: Path) -> None:
    """The images for a sheet of augmented ones have the size of the model, and their rows of the manifest."""
    for label, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (40, 30), colour).save(tmp_path / label / f"{number}.png")
    found = survey(read_from(tmp_path)[0], storage.open_store, max_pixels=10**6, progress=Progress([]))

    rows, pixels = select(found, storage.open_store, 48)

    assert ((4, 48, 48, 3), np.uint8) == (pixels.shape, pixels.dtype)
    is_red = pixels[:, 0, 0, 0] > pixels[:, 0, 0, 2]
    assert [found.manifest.labels[label] == "red" for label in found.manifest.label[rows]] == is_red.tolist()


def test_augmented_sheet() -> None:
    """Each row has an image and its versions, in their order."""
    shades = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    versions = np.broadcast_to(shades[:, :, None, None, None], (2, 3, 10, 10, 3))

    sheet = np.asarray(augmented_sheet(versions))

    seen = [
        [
            int(sheet[n * (SIDE + GAP) + TEXT + 2 * GAP + 5, column * (SIDE + GAP) + 2 * GAP + 5, 0])
            for column in range(3)
        ]
        for n in range(2)
    ]
    assert shades.tolist() == seen
