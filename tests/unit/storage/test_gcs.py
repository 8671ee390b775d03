"""The parts of the bucket's store that need no bucket."""

from __future__ import annotations

import pytest

from job.errors import DataError, FinetuneError, UnavailableError


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
