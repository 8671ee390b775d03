"""Out of memory on the device: the same work in smaller parts, and exit code 8 where not even one image fits."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, TypeVar

from job import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Result = TypeVar("Result")

_REMEDY = "use a GPU with more memory, or lower model.image_size"


def halve_until_it_fits(
    compute: Callable[[int], Result], images: int, *, work: str, halved: Callable[[int], object]
) -> Result:
    """Compute something in parts of `images` images; in parts half as large each time they do not fit into memory.

    Args:
        compute: does all of the work, in parts of the given number of images. It is called again from the start, so a
            call that fails must leave nothing behind.
        images: in a part, at first.
        work: what is computed, for the message.
        halved: gets each smaller number of images before it is tried.

    Raises:
        errors.DeviceMemoryError: not even one image at a time fits.
    """
    from tensorflow import errors as tf_errors

    while True:
        try:
            return compute(images)
        except tf_errors.ResourceExhaustedError as error:
            if images == 1:
                raise errors.DeviceMemoryError(
                    f"one image at a time does not fit into the device's memory in {work}", remedy=_REMEDY
                ) from error
        # note: not in the except clause, where the traceback keeps the failed call's tensors alive
        images //= 2
        halved(images)


@contextlib.contextmanager
def exhaustion_explained() -> Iterator[None]:
    """Raise errors.DeviceMemoryError for work that runs out of the device's memory and is not done in parts.

    Creating variables on a GPU that another process has filled is an example.
    """
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")  # note: it takes seconds to import, and no other code raises this
        if tensorflow is None or not isinstance(error, tensorflow.errors.ResourceExhaustedError):
            raise
        raise errors.DeviceMemoryError(
            f"the device's memory is full: {error.message.strip().partition(chr(10))[0]}", remedy=_REMEDY
        ) from error
