"""The certificates that every client trusts: one bundle for all, and one error where a certificate is not trusted.

requests, and so google-cloud-storage, reads REQUESTS_CA_BUNDLE. obstore and OpenSSL, and so the download of weights and
the Kubernetes client, read SSL_CERT_FILE. If only one of them were set, some connections would fail.
"""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from job.config import environment
from job.errors import SettingsError

_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""The first that is set names the bundle. requests reads the second as well."""

REMEDY = (
    "If a proxy or a private authority issued it, set REQUESTS_CA_BUNDLE or SSL_CERT_FILE (one is enough) to a PEM "
    "file with the authority's certificate. An expired one must be renewed, unless this machine's clock is wrong; one "
    "for another host name means a wrong address, or a proxy that is not expected here."
)


def use_one_bundle() -> str | None:
    """Make every client of this process trust the bundle that the environment names for any of them.

    Call before a client is created.

    Returns:
        The variable that names it, and its path; None without one.

    Raises:
        SettingsError: it cannot be read, or is no bundle.
    """
    for name in _VARIABLES:
        if path := environment.get(name):
            _check(name, path)
            environment.set_value("REQUESTS_CA_BUNDLE", path)
            environment.set_value("SSL_CERT_DIR" if Path(path).is_dir() else "SSL_CERT_FILE", path)
            return f"{name}={path}"
    return None


@functools.cache
def _check(name: str, path: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if not Path(path).is_dir():
            context.load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"{name}={path!r} is no bundle of certificates: {error.strerror or error}",
            remedy="Name a file with certificates in PEM form, or unset the variable.",
        ) from error


def verification_error(error: BaseException, where: str, *, remedy: str = REMEDY) -> SettingsError | None:
    """Return the error for a server whose certificate cannot be verified; None if ``error`` has another cause.

    A retry does not help, so this is no network error.

    Args:
        error: raised by any client; its causes are searched.
        where: the URI or the server, for the message.
        remedy: how to make the certificate trusted.
    """
    pending: list[object] = [error]
    seen: list[object] = []
    while pending:
        cause = pending.pop()
        if isinstance(cause, ssl.SSLCertVerificationError):
            text = f"{where}: the server's certificate cannot be verified: {cause.verify_message.rstrip('.')}"
            return SettingsError(text, remedy=remedy)
        if isinstance(cause, BaseException) and not any(cause is other for other in seen):
            seen.append(cause)
            # urllib3 and requests pass the cause as an argument or as `reason`.
            pending += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
    return None
