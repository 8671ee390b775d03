"""Faster imports of large packages."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

UNUSED: Final = ("matplotlib", "scipy", "sklearn")
"""What TensorFlow and Keras import where it is installed, for functions that the job does not call.

It is an eighth of the CPU time of their import in the image, and a third where all three are installed. The report
imports matplotlib itself.
"""


@contextlib.contextmanager
def fast() -> Iterator[None]:
    """Disable garbage collection during the block, exclude its objects from later collections, and hide `UNUSED`.

    Modules, classes and functions live as long as the process, and TensorFlow has so many that repeatedly scanning
    them takes a fifth of its import (https://docs.python.org/3/library/gc.html#gc.freeze).

    In the block the import of an `UNUSED` package raises ModuleNotFoundError, as if it were not installed, in every
    thread; one that is imported before stays.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    hidden = [name for name in UNUSED if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # None: https://docs.python.org/3/reference/import.html
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        gc.freeze()
        if was_enabled:
            gc.enable()
