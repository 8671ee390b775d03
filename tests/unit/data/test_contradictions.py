"""The same bytes under two labels."""

from __future__ import annotations

import numpy as np
import pytest
from structlog.testing import capture_logs

from job.data import contradictions
from job.data.manifest import Manifest
from job.errors import DataError


def manifest(label: list[int], content: list[int]) -> Manifest:
    """Return a manifest of images with these labels and contents."""
    count = len(label)
    return Manifest(
        roots=("gs://b/d",),
        labels=("cats", "dogs"),
        names=[f"{number}.jpg" for number in range(count)],
        root=np.zeros(count, np.uint16),
        label=np.array(label, np.int32),
        split=np.zeros(count, np.uint8),
        size=np.full(count, 7, np.int64),
        crc32c=np.array(content, np.uint32),
        generation=np.ones(count, np.int64),
        gzip=np.zeros(count, np.bool_),
    )


def test_found() -> None:
    """Every image counts whose bytes are under another label as well; copies within a class do not."""
    found = contradictions.find(manifest([0, 0, 1, 1, 0, 1, 0], [5, 5, 5, 6, 7, 8, 7]))

    assert [0, 1, 2] == sorted(found.tolist())
    assert [] == contradictions.find(manifest([], [])).tolist()


@pytest.mark.parametrize(("contradictory", "images"), [(2, 150), (12, 5000)])
def test_too_many(contradictory: int, images: int) -> None:
    """More than 10, or more than one in a hundred, are a mistake: both labels and the first images are named."""
    half = contradictory // 2
    data = manifest(
        [0] * half + [1] * half + [0] * (images - contradictory), [*range(half)] * 2 + [*range(half, images - half)]
    )

    with pytest.raises(DataError) as raised:
        contradictions.check(data, settled=False)

    assert f"{contradictory} of {images:,} images" in raised.value.message
    assert "gs://b/d/0.jpg is 'cats'" in raised.value.message
    with capture_logs() as logs:
        contradictions.check(data, settled=True)
    assert [("input.labels_contradict", contradictory)] == [(log["event"], log["images"]) for log in logs]


def test_few_are_a_warning() -> None:
    """Ten of a thousand images are reported."""
    data = manifest([0] * 5 + [1] * 5 + [0] * 990, [*range(5)] * 2 + [*range(5, 995)])

    with capture_logs() as logs:
        contradictions.check(data, settled=False)

    assert [("input.labels_contradict", "warning", 10)] == [
        (log["event"], log["log_level"], log["images"]) for log in logs
    ]


def test_none() -> None:
    """Different images, and copies under one label, are no matter."""
    with capture_logs() as logs:
        contradictions.check(manifest([0, 0, 1], [1, 1, 2]), settled=False)

    assert [] == logs
