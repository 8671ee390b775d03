"""Imports of many modules, in less time."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Import without garbage collection, and leave what the block made out of every later one.

    Modules, classes and functions stay for as long as the process does, and there are so many of them in TensorFlow
    that looking through them, again and again while there are more, is a fifth of its import
    (https://docs.python.org/3/library/gc.html#gc.freeze).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
