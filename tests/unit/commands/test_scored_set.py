"""Scoring a labelled set: rows, quarantine and its budget."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from drawn_images import encode, picture

from job import storage
from job.commands import scored_set
from job.config.settings import InputSettings, Settings
from job.data.listing import read_listing
from job.errors import DataError
from job.export.predictor import Answer
from job.observability.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from job.data.image_files import Image
    from job.data.manifest import Manifest


class Sizes:
    """Answers the size of an image in place of a model."""

    labels = ("cats", "dogs")

    def predict(self, batches: Iterable[Sequence[Image]]) -> Iterator[list[Answer]]:
        """Yield the answers."""
        for batch in batches:
            yield [
                Answer(image.uri, None, image.reason, image.detail)
                if image.data is None
                else Answer(image.uri, np.array([len(image.data), 0], np.float32))
                for image in batch
            ]


def listed(folder: Path, *, images: int, bad: int) -> Manifest:
    """Return a set of images of two classes, the first ones of one of them unusable."""
    for number in range(images):
        path = folder / ("cats", "dogs")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(), "PNG") + bytes(number))
    for path in sorted((folder / "dogs").iterdir())[:bad]:
        path.write_bytes(b"<html>")
    return read_listing(InputSettings(uri=str(folder)), storage.open_store)[0]


def test_rows(tmp_path: Path) -> None:
    """Each usable image has its own answer, also where others between them cannot be used."""
    images = listed(tmp_path, images=70, bad=3)

    found, quarantined = scored_set.score(Sizes(), images, Settings(), storage.open_store, Progress())

    assert 67 == len(found.images)
    assert found.images.size.tolist() == found.probabilities[:, 0].astype(int).tolist()
    assert [("dogs", "not_an_image", 6)] * 3 == [(one.label, one.reason, one.size) for one in quarantined]


@pytest.mark.parametrize(("fraction", "is_refused"), [(0.05, False), (0.02, True)])
def test_budget(tmp_path: Path, fraction: float, is_refused: bool) -> None:
    """The list is written in any case; more than the budget allows are an error that names it."""
    images, output = listed(tmp_path / "set", images=70, bad=3), storage.open_store(str(tmp_path / "out"))
    found, quarantined = scored_set.score(Sizes(), images, Settings(), storage.open_store, Progress())
    settings = Settings(input=InputSettings(max_bad_fraction=fraction))

    if is_refused:
        with pytest.raises(DataError, match="3 of 70 images") as raised:
            scored_set.check_quarantine(output, found.images, quarantined, settings, Progress())
        assert f"{tmp_path}/out/quarantine.jsonl" in raised.value.remedy
    else:
        scored_set.check_quarantine(output, found.images, quarantined, settings, Progress())

    rows = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert sorted(one.uri for one in quarantined) == [row["uri"] for row in rows]


def test_no_usable_image(tmp_path: Path) -> None:
    """A set of which nothing can be used is an error, with any budget."""
    images, output = listed(tmp_path / "set", images=6, bad=3), storage.open_store(str(tmp_path / "out"))
    settings = Settings(input=InputSettings(max_bad_fraction=1.0))

    with pytest.raises(DataError, match="can be used"):
        scored_set.check_quarantine(output, images.take(np.array([], int)), [], settings, Progress())
