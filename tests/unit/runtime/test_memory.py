"""Work that does not fit into the device's memory is done in smaller parts, or ends with exit code 8."""

from __future__ import annotations

import pytest
import tensorflow as tf

from job import errors
from job.runtime import memory


def out_of_memory(message: str = "OOM when allocating tensor") -> tf.errors.ResourceExhaustedError:
    """Return what TensorFlow raises."""
    return tf.errors.ResourceExhaustedError(None, None, message)


@pytest.mark.parametrize(
    ("images", "fits", "expected"), [(32, 32, []), (32, 9, [16, 8]), (7, 2, [3, 1]), (1, 1, []), (2, 1, [1])]
)
def test_halves_until_it_fits(images: int, fits: int, expected: list[int]) -> None:
    """The number of images is halved, and reported before each new try, until they fit."""
    halved: list[int] = []

    def compute(part: int) -> int:
        if part > fits:
            raise out_of_memory()
        return part

    part = memory.halve_until_it_fits(compute, images, work="this", halved=halved.append)
    assert (expected, [images, *expected][-1]) == (halved, part)


def test_one_image_does_not_fit() -> None:
    """Exit 8, naming the work; other errors are raised as they are."""

    def compute(_: int) -> None:
        raise out_of_memory()

    with pytest.raises(errors.DeviceMemoryError, match=r"one image at a time .* in the feature pass") as caught:
        memory.halve_until_it_fits(compute, 4, work="the feature pass", halved=lambda _: None)
    assert 8 == caught.value.exit_code

    def fail(_: int) -> None:
        raise ValueError("another")

    with pytest.raises(ValueError, match="another"):
        memory.halve_until_it_fits(fail, 4, work="this", halved=lambda _: None)


def test_failed_call_is_not_kept() -> None:
    """What the failed call had allocated is free before the next one: its traceback would keep it alive."""
    alive: list[int] = []

    class Large:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def compute(part: int) -> int:
        assert not alive
        large = Large()
        if part > 1:
            raise out_of_memory()
        return len(alive) if large else 0

    assert 1 == memory.halve_until_it_fits(compute, 8, work="this", halved=lambda _: None)


def test_work_that_is_not_done_in_parts() -> None:
    """Anything else that exhausts the device's memory is exit 8 with the first line of TensorFlow's message."""
    with pytest.raises(errors.DeviceMemoryError) as caught, memory.exhaustion_converted():
        raise out_of_memory("no room\nHint: a list of allocations")
    assert "the device's memory is full: no room" == caught.value.message
    with pytest.raises(KeyError), memory.exhaustion_converted():
        raise KeyError("another")
