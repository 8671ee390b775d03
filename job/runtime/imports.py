"""Faster imports of large packages."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Disable garbage collection during the block, and exclude its objects from later collections.

    Modules, classes and functions live as long as the process, and TensorFlow has so many that repeatedly scanning
    them takes a fifth of its import (https://docs.python.org/3/library/gc.html#gc.freeze).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
