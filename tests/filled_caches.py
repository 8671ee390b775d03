"""A cache of 40 small images, filled, as a stopped run leaves it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from job import errors
from job.config.settings import CacheSettings
from job.data import cache

if TYPE_CHECKING:
    from pathlib import Path

DATA = {"encoded": {"data": "d"}, "pixels": {"data": "d", "image_size": 4}, "features": {"threads": [2]}}

INDEX_BYTES = 40 * 32
FEATURE_BYTES = 40 * (3 * 4 + 4)
PIXEL_BYTES = 40 * (4 * 4 * 3 + 4)
"""Of the cache that `open_cache` opens, with checksums."""


def open_cache(folder: Path | str, **changes: Any) -> cache.Cache:
    """Open the cache of a run of 40 images of 4 x 4 pixels, with features of length 3."""
    limits = {name: changes.pop(name, None) for name in ("max_bytes", "volume_limit_bytes")}
    settings = CacheSettings(dir=str(folder), **limits)
    sizes = {"images": 40, "encoded_bytes": 4000, "image_size": 4, "feature_size": 3}
    return cache.Cache(settings, **{"run_id": "run-1", "made_from": DATA, **sizes, **changes})


def fill(kept: cache.Cache) -> None:
    """Put something into every row."""
    for row in reversed(range(40)):
        kept.put_encoded(row, bytes([row]) * (row + 1))
    kept.features[0:40] = np.arange(120, dtype=np.float32).reshape(40, 3)
    assert kept.pixels is not None
    kept.pixels[0:40] = np.arange(40 * 48, dtype=np.int64).reshape(40, 4, 4, 3) % 251


def interrupted(folder: Path, **changes: Any) -> Path:
    """Fill the cache of a run that is stopped then, and return where it lies."""
    with contextlib.suppress(errors.StoppedError), open_cache(folder, **changes) as kept:
        fill(kept)
        raise errors.StoppedError("stopped", remedy="")
    return kept.folder
