"""Calls to Google Cloud Storage, retried according to one policy, with errors converted to `job.errors`.

The retries of both client libraries are disabled, so that one policy applies to every request.
"""

from __future__ import annotations

import http.client
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import requests
import urllib3
from google.api_core.exceptions import BadRequest, Forbidden, GoogleAPICallError
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage.exceptions import DataCorruption

from job.config import certificates
from job.errors import AccessError, FinetuneError, SettingsError, UnavailableError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.storage.objects import RetryPolicy

Result = TypeVar("Result")

SECONDS_BETWEEN_LOG_LINES = 3.0

CREDENTIALS_REMEDY = (
    "On GKE run the Pod as a Kubernetes service account that is bound to Google Cloud by Workload Identity; elsewhere "
    "set GOOGLE_APPLICATION_CREDENTIALS to a key file or run `gcloud auth application-default login`. "
    "Public input needs none: storage.anonymous=true."
)

_NETWORK = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)
"""Raised by the layers below google-cloud-storage."""

_NEVER_CLOSED = threading.Event()

_CUSTOMER_KEY_REASON = "resourceIsEncryptedWithCustomerEncryptionKey"
"""https://cloud.google.com/storage/docs/json_api/v1/status-codes"""

_USE_PROJECT = "serviceusage.services.use"
"""The permission to bill a project: https://cloud.google.com/storage/docs/requester-pays"""

_LOCKED_REASONS = {"retentionPolicyNotMet", "objectUnderActiveHold"}
_LOCKED_WORDS = re.compile(r"retention policy|\bhold\b", re.IGNORECASE)
"""For responses without reasons, as those of the XML API and of some proxies."""


class DamagedError(Exception):
    """The received bytes do not match the store's checksum."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A transient error."""

    kind: Literal["network", "credentials", "damaged"]
    retry_after: float = 0.0
    """From the store's ``Retry-After`` header."""


class Calls:
    """Makes the calls to one bucket. Thread-safe.

    Args:
        policy: how long a call is retried.
        bucket: its name, for messages.
        credentials: the caller's; None for a call that obtains credentials.
    """

    def __init__(self, policy: RetryPolicy, bucket: str, credentials: Credentials | None) -> None:
        self._policy = policy
        self._bucket = bucket
        self._credentials = credentials
        self._last_logged = 0.0

    def __call__(
        self,
        attempt: Callable[[int], Result],
        *,
        permission: str,
        uri: str,
        closed: threading.Event = _NEVER_CLOSED,
    ) -> Result:
        """Return the result of ``attempt``, retried on transient errors.

        Args:
            attempt: makes the request once; receives the number of the try, from 1.
            permission: the IAM permission that the request needs, for the message.
            uri: the object of the request, for the message.
            closed: once set, the result is no longer needed, so there are no more retries.

        Raises:
            UnavailableError, AccessError, SettingsError: after all retries, or if retrying is useless.
            google.api_core.exceptions.GoogleAPICallError: any other response, such as NotFound, for the caller.
        """
        started = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                return attempt(tries)
            except (Forbidden, BadRequest) as error:
                raise self._rejected(error, permission, uri) from error
            except Exception as error:
                if untrusted := certificates.verification_error(error, uri):
                    raise untrusted from error
                fault = _fault(error)
                if fault is None:
                    raise
                elapsed = time.monotonic() - started
                remaining = self._seconds_for(fault, tries) - elapsed
                if remaining <= 0 or fault.retry_after > remaining or closed.is_set():
                    effort = f"{tries} {'try' if tries == 1 else 'tries'} in {elapsed:.0f} s"
                    raise self._retries_exhausted(fault, error, effort, uri) from error
                # Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter
                longest = min(self._policy.longest_wait, self._policy.first_wait * 2 ** min(tries - 1, 30))
                wait = min(remaining, max(fault.retry_after, random.uniform(0, longest)))  # noqa: S311  # no secret
                self._log(error, uri, tries, remaining)
                closed.wait(wait)

    def _seconds_for(self, fault: _Fault, tries: int) -> float:
        match fault.kind:
            case "credentials":
                return self._policy.credential_seconds
            case "damaged" if tries >= self._policy.damaged_tries:
                return 0.0
            case _:
                return self._policy.outage_seconds

    def _log(self, error: Exception, uri: str, tries: int, remaining: float) -> None:
        """Log a retry, rate-limited over all threads."""
        now = time.monotonic()
        if now - self._last_logged >= SECONDS_BETWEEN_LOG_LINES:
            self._last_logged = now
            log.get().warning(
                "storage.retried", uri=uri, tries=tries, error=_one_line(error), seconds_left=round(remaining)
            )

    def _rejected(self, error: GoogleAPICallError, permission: str, uri: str) -> FinetuneError:
        message, reasons = _one_line(error), _reasons(error)
        if _CUSTOMER_KEY_REASON in reasons:
            return _customer_key(uri)
        if isinstance(error, Forbidden) and (reasons & _LOCKED_REASONS or _LOCKED_WORDS.search(message)):
            return AccessError(
                f"{uri} is locked by a retention policy or a hold: {message}",
                remedy="A run overwrites and deletes its own objects (status.json, checkpoints/): publish to a bucket "
                "without a retention policy, and release any hold on objects below output.uri.",
            )
        if isinstance(error, Forbidden) and _USE_PROJECT in message:
            return AccessError(
                f"{self._principal()} may not bill the project of storage.user_project for {uri}: {message}",
                remedy=f"gcloud projects add-iam-policy-binding PROJECT --member={self._member()} "
                "--role=roles/serviceusage.serviceUsageConsumer",
            )
        if isinstance(error, Forbidden):
            # Overwriting an object needs the permission to delete it: the response names what is missing.
            named = re.search(r"storage\.\w+\.\w+", message)
            permission = named.group() if named else permission
            return self._access_denied(f"lacks {permission} on {uri}: {message}", permission)
        return SettingsError(
            f"the store does not take the request for {uri}: {_one_line(error)}",
            remedy="If the bucket is requester-pays, name the project that pays in storage.user_project; "
            "otherwise check the bucket's name and the path.",
        )

    def _retries_exhausted(self, fault: _Fault, error: Exception, effort: str, uri: str) -> FinetuneError:
        match fault.kind:
            case "credentials":
                return AccessError(
                    f"{self._principal()} has no valid credentials for {uri} after {effort}: {_one_line(error)}",
                    remedy=CREDENTIALS_REMEDY,
                )
            case "damaged":
                return UnavailableError(
                    f"{uri} arrived corrupted in {effort}: {_one_line(error)}",
                    remedy="Something between here and the store changes bytes (a proxy, a bad link): see to that, "
                    "then start the job again.",
                )
            case _:
                return UnavailableError(
                    f"{uri} is unreachable after {effort}: {_one_line(error)}",
                    remedy="Check that the store can be reached from here (network policy, proxy, service mesh, "
                    "STORAGE_EMULATOR_HOST), then start the job again.",
                )

    def _access_denied(self, problem: str, permission: str) -> AccessError:
        role = "objectViewer" if permission.endswith((".list", ".get")) else "objectUser"
        remedy = (
            f"gcloud storage buckets add-iam-policy-binding gs://{self._bucket} "
            f"--member={self._member()} --role=roles/storage.{role}"
        )
        if role == "objectViewer" and isinstance(self._credentials, AnonymousCredentials):
            remedy += "; or, unless everyone may read the bucket, storage.anonymous=false"
        elif role == "objectViewer":
            remedy += "; or, if the bucket is public, storage.anonymous=true"
        return AccessError(f"{self._principal()} {problem}", remedy=remedy)

    def _member(self) -> str:
        """Return the caller as a member of an IAM policy."""
        principal = self._principal()
        if "@" not in principal:
            return "PRINCIPAL"
        return f"{'serviceAccount' if principal.endswith('.gserviceaccount.com') else 'user'}:{principal}"

    def _principal(self) -> str:
        return "this process" if self._credentials is None else principal(self._credentials)


def principal(credentials: Credentials) -> str:
    """Return the account that credentials are of, by its address if they have it."""
    if isinstance(credentials, AnonymousCredentials):
        return "anonymous"
    addresses = (getattr(credentials, name, None) for name in ("service_account_email", "account"))
    return next(filter(None, map(str, filter(None, addresses))), "an unknown principal")


_CUSTOMER_KEY_REMEDY = (
    "Rewrite the object with a key of Cloud KMS or of Google: "
    "gcloud storage objects update URI --clear-encryption-key --decryption-keys=KEY"
)


def _customer_key(uri: str) -> AccessError:
    """Return the error for an object that only its owner's key can decrypt."""
    return AccessError(
        f"{uri} is encrypted with a key supplied by the customer (CSEK), which this job does not have",
        remedy=_CUSTOMER_KEY_REMEDY,
    )


def no_checksum(uri: str) -> AccessError:
    """Return the error for an object whose own metadata has no checksum."""
    return AccessError(
        f"the store gives no crc32c of {uri}, so its bytes cannot be verified: it is probably encrypted with a key "
        "supplied by the customer (CSEK)",
        remedy=_CUSTOMER_KEY_REMEDY,
    )


def _fault(error: Exception) -> _Fault | None:
    """Classify a transient error; None if a retry would have the same result."""
    match error:
        case GoogleAPICallError(code=int(code)) if code in (408, 429) or code >= 500:
            return _Fault("network", _retry_after(error))
        case GoogleAPICallError(code=401):
            return _Fault("credentials")
        case GoogleAuthError():
            # An unreachable token server is a network error; a refusal is an error of the credentials.
            return _Fault("network" if isinstance(_innermost(error), requests.RequestException) else "credentials")
        case DamagedError() | DataCorruption():
            return _Fault("damaged")
        case _:
            return _Fault("network") if isinstance(error, _NETWORK) else None


def _retry_after(error: GoogleAPICallError) -> float:
    headers = getattr(error.response, "headers", {})
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _reasons(error: GoogleAPICallError) -> set[str]:
    """Return the reasons in an error response of the JSON API."""
    try:
        return {item["reason"] for item in error.response.json()["error"]["errors"]}
    except (AttributeError, KeyError, TypeError, ValueError):  # no response, or not one of the JSON API
        return set()


def _innermost(error: object) -> object:
    while isinstance(error, GoogleAuthError) and error.args:
        error = error.args[0]
    return error


def _one_line(error: Exception) -> str:
    """Return an error as text on one line: the server's own message if there is one."""
    message = (isinstance(error, GoogleAPICallError) and error.message) or str(error) or type(error).__name__
    return " ".join(str(message).split())[:400]
