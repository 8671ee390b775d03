"""What a bucket's objects hold, without a bucket."""

from __future__ import annotations

import gzip

import pytest

from job.errors import DataError, FinetuneError, UnavailableError
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


@pytest.mark.parametrize(
    ("status", "expected", "message"),
    [(404, DataError, "there is no bucket gs://bucket"), (410, UnavailableError, "its session was lost 3 times: lost")],
)
def test_upload_sessions_that_stay_lost(
    status: int, expected: type[FinetuneError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large upload whose session is lost every time ends after three tries, and not after the whole retry time."""
    from google.api_core.exceptions import from_http_status
    from google.auth.credentials import AnonymousCredentials

    from job.storage import RetryPolicy, gcs

    uploads = []

    def lose(*arguments: object) -> None:
        uploads.append(arguments)
        raise from_http_status(status, "lost")

    monkeypatch.setattr(gcs, "_upload", lose)
    monkeypatch.setattr(gcs, "MULTIPART_BYTES", 10)
    retry = RetryPolicy(seconds=0.5, first_wait=0.001, longest_wait=0.001)
    store = gcs.GoogleStore("bucket", "", AnonymousCredentials(), retry, endpoint="http://127.0.0.1:1")

    with pytest.raises(expected, match=message):
        store.write("large.bin", bytes(11))
    assert 3 == len(uploads)
