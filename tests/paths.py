"""Where things are: this checkout, and the folder beside it with what is too large for a repository.

A test that needs that folder is marked ``needs_shared``, and is not collected where the folder is absent.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]

SHARED = ROOT.parent / "shared"
BAD_IMAGES = SHARED / "data" / "bad_images"
PHOTOS = SHARED / "data" / "cats_dogs_small"
WEIGHTS = SHARED / "weights"
CLUSTER = SHARED / "cluster"
