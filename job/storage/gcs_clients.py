"""Credentials and clients for Google Cloud Storage: google-cloud-storage's, and obstore's for reading in bulk."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING

import google.auth
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from obstore.auth.google import GoogleCredentialProvider
from obstore.store import GCSStore
from requests.adapters import HTTPAdapter

from job.config import environment
from job.storage.google_calls import Calls, principal
from job.storage.objects import RetryPolicy
from job.storage.parallel import CONNECTIONS

if TYPE_CHECKING:
    import obstore

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds without data on an open connection."""

_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)


@functools.cache
def find_credentials(retry: RetryPolicy) -> Credentials:
    """Return Application Default Credentials, found once in a process."""
    if environment.get("KUBERNETES_SERVICE_HOST") is None:  # elsewhere credentials do not appear later
        retry = RetryPolicy(seconds=0, credential_seconds=0)

    def attempt(_: int) -> Credentials:
        credentials, _project = google.auth.default(scopes=_SCOPES)
        # With the metadata server this is one more request. The client would send it later, without retries; here it
        # is retried, and its result is cached.
        assert credentials.universe_domain
        return credentials

    return Calls(retry, "", None)(attempt, permission="", uri="Google Cloud")


_SOURCES = {
    "google.auth.compute_engine": "the metadata server",
    "google.auth.impersonated_credentials": "impersonation",
    "google.auth.identity_pool": "workload identity federation",
    "google.oauth2.service_account": "a service account key",
    "google.oauth2.credentials": "a user's login",
}
"""Module of the credentials' class, or its package -> where they come from."""


def describe_credentials(retry: RetryPolicy) -> str:
    """Obtain an access token, and return whose it is and where it comes from; the token itself is not returned.

    Raises:
        AccessError: there are no credentials, or they are refused.
        UnavailableError: the server that issues tokens is unreachable.
    """
    credentials = find_credentials(retry)
    Calls(retry, "", credentials)(lambda _: credentials.refresh(Request()), permission="", uri="Google Cloud")
    module = type(credentials).__module__
    source = next((text for name, text in _SOURCES.items() if module.startswith(name)), module)
    path = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    return f"{principal(credentials)}, from {source}{f' ({path})' if path else ''}"


def json_client(credentials: Credentials, endpoint: str | None) -> storage.Client:
    """Return google-cloud-storage's client. Its retries are disabled by each call."""
    # Otherwise the client requests the bucket's metadata in a thread, for traces that are not collected.
    environment.set_default("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    session = AuthorizedSession(credentials)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return storage.Client(
        project="test" if endpoint else None,
        credentials=credentials,
        client_options={"api_endpoint": endpoint} if endpoint else None,
        _http=session,
    )


def bulk_client(bucket: str, credentials: Credentials, endpoint: str | None, user_project: str | None) -> GCSStore:
    """Return obstore's client for one bucket."""
    # Anonymous credentials need a provider too: without one obstore reads GOOGLE_APPLICATION_CREDENTIALS itself,
    # and fails on unknown types.
    anonymous = isinstance(credentials, AnonymousCredentials)
    return GCSStore(
        bucket,
        config={"skip_signature": anonymous, **({"base_url": endpoint} if endpoint else {})},
        credential_provider=_anonymous if anonymous else GoogleCredentialProvider(credentials),
        client_options={
            "allow_http": endpoint is not None,
            "connect_timeout": timedelta(seconds=TIMEOUT[0]),
            "read_timeout": timedelta(seconds=TIMEOUT[1]),
            "timeout": timedelta(minutes=10),
            "default_headers": {"x-goog-user-project": user_project} if user_project else {},
        },
        retry_config={"max_retries": 0},
    )


def _anonymous() -> obstore.store.GCSCredential:
    return {"token": "anonymous", "expires_at": None}
