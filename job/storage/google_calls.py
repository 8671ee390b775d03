"""One call to Google Cloud Storage: tried again as the policy says, its errors told in our own terms.

The libraries' own retries are switched off, so that there is one policy for every request of both of them.
"""

from __future__ import annotations

import http.client
import random
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

from job.errors import AccessError, FinetuneError, SettingsError, UnavailableError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from job.storage.objects import RetryPolicy

Result = TypeVar("Result")

SECONDS_BETWEEN_LOG_LINES = 3.0

CREDENTIALS_REMEDY = (
    "On GKE run the Pod as a Kubernetes service account that is bound to Google Cloud by Workload Identity; elsewhere "
    "set GOOGLE_APPLICATION_CREDENTIALS to a key file or run `gcloud auth application-default login`."
)

_NETWORK = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)
"""What comes up from the layers below google-cloud-storage."""

_NEVER = threading.Event()


class DamagedError(Exception):
    """The bytes that arrived are not those the store has a checksum of."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """An error that may be gone at the next try."""

    kind: Literal["network", "credentials", "damaged"]
    seconds_asked_for: float = 0.0
    """What the store itself asks to wait for (``Retry-After``)."""


class Calls:
    """Makes the calls to one bucket. For any number of threads.

    Args:
        policy: for how long a call is tried again.
        bucket: its name, for the messages.
        credentials: who calls; None where credentials are what is called for.
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
        closed: threading.Event = _NEVER,
    ) -> Result:
        """Return what ``attempt`` returns.

        Args:
            attempt: makes the request once. Gets the number of the try, from 1.
            permission: the IAM permission that the request needs, for the message.
            uri: what the request is about, for the message.
            closed: once it is set nobody waits for the result any more.

        Raises:
            UnavailableError, AccessError, SettingsError: after all retries, or where they are of no use.
            google.api_core.exceptions.GoogleAPICallError: any other answer, such as NotFound, is the caller's matter.
        """
        started = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                return attempt(tries)
            except (Forbidden, BadRequest) as error:
                raise self._refused(error, permission, uri) from error
            except Exception as error:
                fault = _fault(error)
                if fault is None:
                    raise
                spent = time.monotonic() - started
                left = self._seconds_for(fault, tries) - spent
                if left <= 0 or fault.seconds_asked_for > left or closed.is_set():
                    effort = f"{tries} {'try' if tries == 1 else 'tries'} in {spent:.0f} s"
                    raise self._given_up(fault, error, effort, uri) from error
                # Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter
                longest = min(self._policy.longest_wait, self._policy.first_wait * 2 ** min(tries - 1, 30))
                wait = min(left, max(fault.seconds_asked_for, random.uniform(0, longest)))  # noqa: S311  # no secret
                self._log(error, uri, tries, left)
                closed.wait(wait)

    def _seconds_for(self, fault: _Fault, tries: int) -> float:
        match fault.kind:
            case "credentials":
                return self._policy.credential_seconds
            case "damaged" if tries >= self._policy.damaged_tries:
                return 0.0
            case _:
                return self._policy.seconds

    def _log(self, error: Exception, uri: str, tries: int, left: float) -> None:
        """Say that there is trouble: one line in a while, however many threads are in it."""
        now = time.monotonic()
        if now - self._last_logged >= SECONDS_BETWEEN_LOG_LINES:
            self._last_logged = now
            log.get().warning("storage.retried", uri=uri, tries=tries, error=_text(error), seconds_left=round(left))

    def _refused(self, error: GoogleAPICallError, permission: str, uri: str) -> FinetuneError:
        if isinstance(error, Forbidden):
            return self._no_access(f"lacks {permission} on {uri}: {_text(error)}", permission)
        return SettingsError(
            f"the store does not take the request for {uri}: {_text(error)}",
            remedy="If the bucket is requester-pays, name the project that pays in input.user_project; "
            "otherwise check the bucket's name and the path.",
        )

    def _given_up(self, fault: _Fault, error: Exception, effort: str, uri: str) -> FinetuneError:
        match fault.kind:
            case "credentials":
                return AccessError(
                    f"{self._principal()} has no valid credentials for {uri} after {effort}: {_text(error)}",
                    remedy=CREDENTIALS_REMEDY,
                )
            case "damaged":
                return UnavailableError(
                    f"{uri} did not arrive whole after {effort}: {_text(error)}",
                    remedy="Something between here and the store changes bytes (a proxy, a bad link): see to that, "
                    "then start the job again.",
                )
            case _:
                return UnavailableError(
                    f"{uri} is out of reach after {effort}: {_text(error)}",
                    remedy="Check that the store can be reached from here (network policy, proxy, service mesh, "
                    "STORAGE_EMULATOR_HOST), then start the job again.",
                )

    def _no_access(self, what: str, permission: str) -> AccessError:
        principal = self._principal()
        member = "PRINCIPAL"
        if "@" in principal:
            member = f"{'serviceAccount' if principal.endswith('.gserviceaccount.com') else 'user'}:{principal}"
        role = "objectViewer" if permission.endswith((".list", ".get")) else "objectUser"
        return AccessError(
            f"{principal} {what}",
            remedy=f"gcloud storage buckets add-iam-policy-binding gs://{self._bucket} "
            f"--member={member} --role=roles/storage.{role}",
        )

    def _principal(self) -> str:
        """Return who calls: the address of the account where the credentials know it."""
        if self._credentials is None:
            return "this process"
        if isinstance(self._credentials, AnonymousCredentials):
            return "anonymous"
        addresses = (getattr(self._credentials, name, None) for name in ("service_account_email", "account"))
        return next(filter(None, map(str, filter(None, addresses))), "an unknown principal")


def _fault(error: Exception) -> _Fault | None:
    """Return what may be gone at the next try; None where the answer would be the same."""
    match error:
        case GoogleAPICallError(code=int(code)) if code in (408, 429) or code >= 500:
            return _Fault("network", _retry_after(error))
        case GoogleAPICallError(code=401):
            return _Fault("credentials")
        case GoogleAuthError():
            # A token server that cannot be reached is the network's trouble; one that says no is ours.
            return _Fault("network" if isinstance(_innermost(error), requests.RequestException) else "credentials")
        case DamagedError() | DataCorruption():
            return _Fault("damaged")
        case _:
            return _Fault("network") if isinstance(error, _NETWORK) else None


def _retry_after(error: GoogleAPICallError) -> float:
    headers = getattr(error.response, "headers", {})
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else 0.0


def _innermost(error: object) -> object:
    while isinstance(error, GoogleAuthError) and error.args:
        error = error.args[0]
    return error


def _text(error: Exception) -> str:
    """Return an error as part of a line: the server's own sentence where there is one."""
    message = (isinstance(error, GoogleAPICallError) and error.message) or str(error) or type(error).__name__
    return " ".join(str(message).split())[:400]
