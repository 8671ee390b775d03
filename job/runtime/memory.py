"""Out of memory on the device: repeats the work in smaller parts; exit code 8 if not even one image fits."""

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
    """Compute in parts of `images` images, and halve the parts until they fit into memory.

    Args:
        compute: does all the work in parts of the given number of images. It is restarted from the beginning, so a
            failed call must leave no state behind.
        images: initial size of a part.
        work: name of the work, for the message.
        halved: receives each smaller size before it is tried.

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
def exhaustion_converted() -> Iterator[None]:
    """Raise errors.DeviceMemoryError if work that is not done in parts runs out of the device's memory.

    An example is the creation of variables on a GPU whose memory another process has filled.
    """
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")  # note: importing takes seconds, and no other code raises this
        if tensorflow is None or not isinstance(error, tensorflow.errors.ResourceExhaustedError):
            raise
        raise errors.DeviceMemoryError(
            f"the device's memory is full: {error.message.strip().partition(chr(10))[0]}", remedy=_REMEDY
        ) from error
