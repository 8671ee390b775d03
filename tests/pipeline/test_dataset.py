"""The pass over the data, interrupted and taken up again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from runs import draw

from job import cache, config, dataset, errors, manifest
from job.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES = 80
"""Of each of two classes: five ranges of 32 rows."""


@pytest.fixture
def listed(tmp_path: Path) -> manifest.Manifest:
    """Draw small pictures, and list them."""
    for n in range(IMAGES):
        for label, shade in (("dark", 90), ("light", 160)):
            draw(tmp_path / "in" / label / f"{n}.png", shade=shade, seed=n, size=(8, 8))
    return manifest.read(config.InputSettings(uri=str(tmp_path / "in")))[0]


@contextlib.contextmanager
def opened(
    listed: manifest.Manifest, tmp_path: Path, **changes: object
) -> Iterator[tuple[dataset.Dataset, cache.Cache]]:
    """Open the data, with a cache that outlives a start that fails."""
    sizes = {"images": len(listed), "encoded_bytes": int(listed.size.sum()), "image_size": 8, "feature_size": 0}
    settings = config.CacheSettings(dir=str(tmp_path / "cache"), **changes)
    parts = {"encoded": 1, "features": 1, "pixels": 1}
    with (
        cache.Cache(settings, run_id="run-1", made_from=parts, **sizes) as kept,
        dataset.Dataset(listed, kept, image_size=8, max_pixels=10**6, threads=2) as images,
    ):
        yield images, kept


def interrupt(listed: manifest.Manifest, tmp_path: Path, ranges: int) -> None:
    """Begin the pass, and stop it after some ranges."""
    with contextlib.suppress(KeyboardInterrupt), opened(listed, tmp_path) as (images, _):
        for number, _ in enumerate(images.ingest(Progress()), 1):
            if number == ranges:
                raise KeyboardInterrupt


def test_only_what_is_missing_is_read(listed: manifest.Manifest, tmp_path: Path) -> None:
    """What an interrupted pass has downloaded is not read from the store again; what is made of it is the same."""
    with opened(listed, tmp_path) as (images, _):
        assert 5 == len(list(images.ingest(Progress())))
        expected = images.pixels(np.arange(2 * IMAGES))
    interrupt(listed, tmp_path, ranges=2)
    for row in range(64):
        (tmp_path / "in" / listed.names[row]).unlink()

    with opened(listed, tmp_path) as (images, _):
        assert 3 == len(list(images.ingest(Progress())))
        assert images.usable.all()
        assert not images.quarantined
        np.testing.assert_array_equal(expected, images.pixels(np.arange(2 * IMAGES)))


def test_images_are_decoded_again_from_what_was_downloaded(listed: manifest.Manifest, tmp_path: Path) -> None:
    """Pixels that are damaged during the run are decoded again, and bytes that are damaged read again."""
    with opened(listed, tmp_path) as (images, kept):
        list(images.ingest(Progress()))
        expected = images.pixels(np.arange(3))
        data = (kept.folder / "pixels").read_bytes()
        (kept.folder / "pixels").open("r+b").write(bytes(192) + data[192:])
        np.testing.assert_array_equal(expected, images.pixels(np.arange(3)))

        before = images.encoded(1)
        (kept.folder / "encoded").open("r+b").write(bytes(kept.folder.joinpath("encoded").stat().st_size))
        assert before == images.encoded(1)
        (tmp_path / "in" / listed.names[2]).unlink()
        with pytest.raises(errors.DataError, match="cannot be read any more, and this run has begun with it"):
            images.encoded(2)


def test_without_pixels(listed: manifest.Manifest, tmp_path: Path) -> None:
    """Pixels that are not kept are decoded each time: the same numbers."""
    with opened(listed, tmp_path) as (images, _):
        list(images.ingest(Progress()))
        expected = images.pixels(np.arange(2 * IMAGES))
    with opened(listed, tmp_path, max_bytes=int(listed.size.sum())) as (images, kept):
        list(images.ingest(Progress()))
        assert kept.pixels is None
        np.testing.assert_array_equal(expected, images.pixels(np.arange(2 * IMAGES)))
