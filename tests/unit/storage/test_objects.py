"""The metadata of objects: the checksum is Cloud Storage's."""

from __future__ import annotations

from job.storage import crc32c


def test_the_checksum_is_castagnolis() -> None:
    """crc32c gives the check value of CRC-32C's definition, whole and piece by piece."""
    assert 0xE3069283 == crc32c(b"123456789") == crc32c(b"6789", crc32c(b"12345"))
