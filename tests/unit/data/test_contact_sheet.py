"""A few images of each class in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from listed_inputs import read_from
from odd_images import jpeg
from PIL import Image

from job import storage
from job.data.contact_sheet import GAP, PER_CLASS, SIDE, TEXT, draw
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
