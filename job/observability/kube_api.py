"""Requests to the Kubernetes API server: the client of a Pod, and an error for each way in which a request can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.config import certificates
from job.errors import AccessError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = (3.0, 5.0)  # seconds to connect and to read

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def in_cluster() -> tuple[Any, str]:
    """Return a client with the identity of this Pod, and the Pod's namespace. Nothing is retried.

    Raises:
        kubernetes.config.ConfigException: this process is in no Pod, or the Pod has no token.
    """
    from kubernetes import client, config

    configuration = client.Configuration()
    config.load_incluster_config(client_configuration=configuration)
    configuration.retries = False  # the caller retries, if anything does
    with open(_NAMESPACE_FILE, encoding="utf-8") as file:  # noqa: PTH123  # one line is enough
        return client.ApiClient(configuration), file.read().strip()


def request(method: Callable[..., Any], *args: object, needs: str, remedy: str, **kwargs: object) -> Any:
    """Send a request, and return what the method of the client returns; None if the object does not exist.

    Args:
        method: of the client.
        args: of the method.
        needs: the permissions, for the remedy where they are missing.
        remedy: what to do where the API server cannot be reached, or fails.
        kwargs: of the method.

    Raises:
        AccessError: a permission is missing.
        SettingsError: the API server's certificate cannot be verified.
        UnavailableError: the API server cannot be reached, or fails.
        kubernetes.client.ApiException: any other refusal.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return method(*args, _request_timeout=TIMEOUT, **kwargs)
    except HTTPError as error:
        raise _unreachable(error, remedy) from error
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status in (401, 403):
            message = f"the API server refuses: {error.status} {error.reason}: {message_of(error)}"
            raise AccessError(message, remedy=needs) from error
        if error.status in (429, 500, 502, 503, 504):
            raise UnavailableError(f"the API server answers {error.status} {error.reason}", remedy=remedy) from error
        if not error.status:  # the client's form of an error of TLS
            raise _unreachable(error, remedy) from error
        raise


def message_of(error: Any) -> str:
    """Return the message in the API server's answer; empty if there is none.

    Args:
        error: a kubernetes.client.ApiException.
    """
    import json

    try:
        return str(json.loads(error.body)["message"])
    except (KeyError, TypeError, ValueError):
        return ""


def _unreachable(error: Exception, remedy: str) -> SettingsError | UnavailableError:
    trusted = f"set the cluster's certificate-authority in the kubeconfig. {certificates.REMEDY}"
    return certificates.verification_error(error, "the API server", remedy=trusted) or UnavailableError(
        f"the API server does not answer: {error}", remedy=remedy
    )
