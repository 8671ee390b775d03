"""What a bucket's objects hold, without a bucket."""

from __future__ import annotations

import gzip

import pytest

from job.storage import ObjectInfo
from job.storage.gcs import _content

PACKED = gzip.compress(b"content" * 100)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(PACKED, b"content" * 100), (PACKED[:-1], PACKED[:-1]), (b"no gzip", b"no gzip")],
    ids=["whole", "cut", "other"],
)
def test_gzip_encoded_objects_are_unpacked_whole_or_not_at_all(data: bytes, expected: bytes) -> None:
    """An object that is called gzip and is cut off or something else is returned as it is stored."""
    assert expected == _content(data, ObjectInfo("name", len(data), 0, 1, gzip=True))
