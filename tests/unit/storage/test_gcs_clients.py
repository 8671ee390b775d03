"""Credentials for Google Cloud Storage, and what is said of them."""

from __future__ import annotations

from typing import Any

import pytest
from google.auth import compute_engine
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError
from google.oauth2 import credentials as oauth2
from google.oauth2 import service_account

from job.errors import AccessError
from job.storage import RetryPolicy, gcs_clients

RETRY = RetryPolicy(seconds=0, credential_seconds=0)
EMAIL = "trainer@p.iam.gserviceaccount.com"


def found(monkeypatch: pytest.MonkeyPatch, credentials: Credentials) -> str:
    """Return the description of credentials that need no server."""
    monkeypatch.setattr(gcs_clients, "find_credentials", lambda _: credentials)
    monkeypatch.setattr(type(credentials), "refresh", lambda *_: None)
    return gcs_clients.describe_credentials(RETRY)


@pytest.fixture(autouse=True)
def _no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name no file of credentials."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (service_account.Credentials(None, EMAIL, "https://t"), f"{EMAIL}, from a service account key"),
        (compute_engine.Credentials(service_account_email=EMAIL), f"{EMAIL}, from the metadata server"),
        (oauth2.Credentials("TOKEN", account="a@b.c"), "a@b.c, from a user's login"),
        (oauth2.Credentials("TOKEN"), "an unknown principal, from a user's login"),
    ],
)
def test_description(monkeypatch: pytest.MonkeyPatch, credentials: Any, expected: str) -> None:
    """The principal and where the credentials come from are named, and no token."""
    assert expected == found(monkeypatch, credentials)


def test_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that GOOGLE_APPLICATION_CREDENTIALS names is told, since another one may have been meant."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/keys/key.json")

    assert "(/keys/key.json)" in found(monkeypatch, service_account.Credentials(None, EMAIL, "https://t"))


def test_credentials_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that get no token end with exit code 5 and name the principal."""

    class Refused(Credentials):  # type: ignore[misc]  # the library has no types
        service_account_email = EMAIL

        def refresh(self, _: object) -> None:
            raise RefreshError("invalid_grant")

    monkeypatch.setattr(gcs_clients, "find_credentials", lambda _: Refused())

    with pytest.raises(AccessError, match=EMAIL):
        gcs_clients.describe_credentials(RETRY)
