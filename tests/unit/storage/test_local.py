"""A disk's errors, converted to the job's."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from job.errors import AccessError, FinetuneError, SettingsError, UnavailableError
from job.storage.local import _convert_error


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, AccessError),
        (errno.EROFS, AccessError),
        (errno.ENOSPC, UnavailableError),
        (errno.EDQUOT, UnavailableError),
        (errno.EIO, UnavailableError),
        (errno.ENOTDIR, SettingsError),
    ],
)
def test_what_a_disk_says_is_told_as_what_to_do(number: int, expected: type[FinetuneError]) -> None:
    """Each kind of trouble has its exit code; the message has the path, and there is a remedy."""
    told = _convert_error(OSError(number, "trouble"), Path("/data/x"), "write")

    assert expected is type(told)
    assert "cannot write '/data/x': trouble" in told.message
    assert told.remedy
