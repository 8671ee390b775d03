"""Which answers of Google Cloud Storage are tried again."""

from __future__ import annotations

import pytest
from google.api_core.exceptions import from_http_status

from job.storage.google_calls import _fault


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "credentials"),
        (404, None),
        (408, "network"),
        (412, None),
        (429, "network"),
        (500, "network"),
        (503, "network"),
    ],
)
def test_answers_that_are_tried_again(status: int, expected: str | None) -> None:
    """A timeout, too many requests and any trouble of the server may be gone at the next try; a refusal is not."""
    fault = _fault(from_http_status(status, "message"))

    assert expected == (fault.kind if fault else None)
