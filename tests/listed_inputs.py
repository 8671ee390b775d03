"""Inputs on disk, listed as a user names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job import storage
from job.config.settings import InputSettings
from job.data.listing import read_listing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from job.data.manifest import Manifest
    from job.data.quarantine import Quarantined


ANIMALS = [f"{label}/{i}.jpg" for label in ("cats", "dogs") for i in range(20)]


def put(folder: Path, names: Iterable[str], data: bytes | None = None) -> Path:
    """Write files, each with bytes of its own unless given."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape") if data is None else data)
    return folder


def read_from(place: Path, **settings: Any) -> tuple[Manifest, list[Quarantined]]:
    """Read an input as a user names it."""
    return read_listing(InputSettings(uri=str(place), **settings), storage.open_store)
