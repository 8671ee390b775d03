"""One bundle of certificates for all clients, and certificates that cannot be verified."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from job.config.certificates import REMEDY, use_one_bundle, verification_error
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PEM = "-----BEGIN CERTIFICATE-----\n"
VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's own bundles away during a test; what is set then is undone as well."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def variables() -> dict[str, str]:
    """Return the variables that are set."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def test_nothing_set() -> None:
    """Without a bundle, every client keeps its own."""
    assert use_one_bundle() is None

    assert {} == variables()


@pytest.mark.parametrize("name", VARIABLES[:3])
def test_folder_of_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A folder of certificates, as requests takes it, has a variable of its own in OpenSSL."""
    monkeypatch.setenv(name, str(tmp_path))

    assert f"{name}={tmp_path}" == use_one_bundle()

    assert (str(tmp_path), str(tmp_path)) == (variables()["REQUESTS_CA_BUNDLE"], variables()["SSL_CERT_DIR"])


@pytest.mark.parametrize("name", VARIABLES[:3])
@pytest.mark.parametrize("text", [None, "", "no certificate", PEM])
def test_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None) -> None:
    """A bundle that is not there, or is none, is a mistake in the settings that names variable and path."""
    path = tmp_path / "bundle.pem"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv(name, str(path))

    with pytest.raises(SettingsError, match="is no bundle of certificates") as raised:
        use_one_bundle()

    assert f"{name}='{path}'" in raised.value.message


def untrusted() -> ssl.SSLCertVerificationError:
    """Return the error of a handshake."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired."
    return error


def wrapped() -> Iterator[Exception]:
    """Yield errors in the forms that libraries give them."""
    yield untrusted()
    yield OSError(untrusted())
    yield OSError("url", OSError(untrusted()))
    outer = OSError("url")
    outer.reason = untrusted()  # type: ignore[attr-defined]
    yield outer
    for how in ("__cause__", "__context__"):
        outer = ValueError("failed")
        setattr(outer, how, KeyError(untrusted()))
        yield outer


@pytest.mark.parametrize("error", list(wrapped()))
def test_untrusted_certificate(error: Exception) -> None:
    """A certificate error is recognized however another error wraps it; the message names reason and place."""
    found = verification_error(error, "gs://bkt/d")

    assert found is not None
    assert "gs://bkt/d: the server's certificate cannot be verified: certificate has expired" == found.message
    assert REMEDY == found.remedy
    assert all(name in REMEDY for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))


def test_other_errors() -> None:
    """Other errors of TLS or of the network are not about a certificate, even if they are their own cause."""
    for error in (ssl.SSLEOFError(8, "EOF"), ConnectionResetError(104, "reset"), ValueError("certificate")):
        error.__context__ = OSError(error)
        assert verification_error(error, "gs://bkt/d") is None
