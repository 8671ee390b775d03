"""Which answers of Google Cloud Storage are tried again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import requests
import urllib3
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    from_http_response,
    from_http_status,
)
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import RefreshError, TransportError
from structlog.testing import capture_logs

from job.errors import AccessError, FinetuneError, SettingsError, UnavailableError
from job.storage import RetryPolicy
from job.storage.google_calls import Calls, DamagedError, _fault

if TYPE_CHECKING:
    from collections.abc import Callable


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


PATIENT = RetryPolicy(seconds=20.0, credential_seconds=20.0, first_wait=0.001, longest_wait=0.001)
IMPATIENT = RetryPolicy(seconds=0.0, credential_seconds=0.0)
CALL = {"permission": "storage.objects.get", "uri": "gs://bkt/a"}


def answer(status: int, **headers: str) -> GoogleAPICallError:
    """Return the error for the store's answer."""
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    response.request = requests.Request("GET", "http://store/a").prepare()
    return from_http_response(response)


def calls(policy: RetryPolicy) -> Calls:
    """Return the calls of a caller without an account."""
    return Calls(policy, "bkt", AnonymousCredentials())


def failing(*failures: Exception) -> Callable[[int], int]:
    """Return a request that fails so, one error a try, and then returns the number of the try."""

    def attempt(tries: int) -> int:
        if tries <= len(failures):
            raise failures[tries - 1]
        return tries

    return attempt


@pytest.mark.parametrize(
    "error",
    [
        answer(408),
        answer(429),
        answer(500),
        answer(503),
        answer(401),
        requests.ConnectionError("refused"),
        urllib3.exceptions.ProtocolError("cut"),
        TimeoutError(),
        RefreshError("no token yet"),
        DamagedError("other bytes"),
    ],
)
def test_transient_errors_are_retried(error: Exception) -> None:
    """A transient error is retried and logged once; the request gets the number of the try."""
    with capture_logs() as lines:
        assert 3 == calls(PATIENT)(failing(error, error), **CALL)
    assert ["storage.retried"] == [line["event"] for line in lines]


def test_an_outage_is_waited_out_for_longer_in_training() -> None:
    """A run that trains holds a GPU and its state: it has more patience than one that has just started."""
    policy = RetryPolicy(seconds=0.0, training_seconds=20.0, first_wait=0.001, longest_wait=0.001)

    with pytest.raises(UnavailableError):
        calls(policy)(failing(answer(503)), **CALL)
    policy.is_training.set()
    assert 2 == calls(policy)(failing(answer(503)), **CALL)


def test_less_patience_applies_from_the_start() -> None:
    """A short storage.retry_seconds is not exceeded before training either."""
    assert 5.0 == RetryPolicy(training_seconds=5.0).outage_seconds


@pytest.mark.parametrize("error", [NotFound("a"), PreconditionFailed("a"), ValueError("a bug")])
def test_other_errors_are_raised_unchanged(error: Exception) -> None:
    """Any other answer, and any bug, is raised unchanged at the first try."""
    with pytest.raises(type(error)) as caught:
        calls(PATIENT)(failing(error), **CALL)
    assert error is caught.value


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (answer(503), UnavailableError, r"gs://bkt/a .* after 1 try in 0 s"),
        (TransportError(requests.ConnectionError("no route")), UnavailableError, "no route"),
        (RefreshError("revoked"), AccessError, "anonymous has no valid credentials for gs://bkt/a .*revoked"),
        (answer(401), AccessError, "no valid credentials"),
        (answer(403), AccessError, "anonymous lacks storage.objects.get on gs://bkt/a"),
        (answer(400), SettingsError, "the request for gs://bkt/a"),
    ],
)
def test_error_after_the_last_try(error: Exception, expected: type[FinetuneError], message: str) -> None:
    """After the last try each kind of error has its class, and names the object and a remedy."""
    with pytest.raises(expected, match=message) as caught:
        calls(IMPATIENT)(failing(error), **CALL)
    assert expected is type(caught.value)
    assert caught.value.remedy


def test_a_project_that_may_not_be_billed() -> None:
    """The remedy for a project of storage.user_project is a role on the project, not on the bucket."""
    error = Forbidden("a@b does not have serviceusage.services.use access to the Google Cloud project.")
    with pytest.raises(AccessError, match=r"storage\.user_project") as caught:
        calls(IMPATIENT)(failing(error), **CALL)
    assert "roles/serviceusage.serviceUsageConsumer" in caught.value.remedy


def test_damaged_bytes_are_read_a_few_times() -> None:
    """Bytes that do not fit their checksum are read three times, however much time is left."""
    with pytest.raises(UnavailableError, match="arrived corrupted in 3 tries"):
        calls(PATIENT)(failing(*[DamagedError("other bytes")] * 9), **CALL)


def test_store_that_asks_for_more_time_than_is_left() -> None:
    """A Retry-After beyond the policy's end is not waited for."""
    with pytest.raises(UnavailableError, match="after 1 try"):
        calls(PATIENT)(failing(answer(503, Retry_After="3600")), **CALL)


def test_no_retry_once_closed() -> None:
    """Once the result is no longer needed, there is no further try."""
    closed = threading.Event()
    closed.set()
    with pytest.raises(UnavailableError, match="after 1 try"):
        calls(PATIENT)(failing(answer(503)), **CALL, closed=closed)


@pytest.mark.parametrize(
    ("permission", "role"),
    [("storage.objects.list", "objectViewer"), ("storage.objects.get", "objectViewer"), ("a.create", "objectUser")],
)
def test_remedy_for_a_missing_permission(permission: str, role: str) -> None:
    """The remedy is the command that grants the smallest role with the permission."""
    with pytest.raises(AccessError) as caught:
        calls(IMPATIENT)(failing(answer(403)), permission=permission, uri="gs://bkt/a")
    assert caught.value.remedy.startswith("gcloud storage buckets add-iam-policy-binding gs://bkt ")
    assert f"--role=roles/storage.{role}" in caught.value.remedy
