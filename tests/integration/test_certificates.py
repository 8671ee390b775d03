"""Servers whose certificates cannot be verified, and one bundle of certificates for every client."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, get_args

import pytest
import yaml
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import Request
from https_server import Authority, Fault, serving
from structlog.testing import capture_logs

from job import storage
from job.errors import SettingsError
from job.model import weights
from job.storage.google_calls import Calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

REASONS: dict[Fault, str] = {
    "unknown": "unable to get local issuer certificate",
    "expired": "certificate has expired",
    "wrong host": "certificate is not valid for 'localhost'",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that no machine trusts."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's own bundles away during a test; what the job sets is undone as well."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(params=get_args(Fault))
def wrong(
    request: pytest.FixtureRequest, authority: Authority, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str, str]]:
    """Return the URL of a server whose certificate is wrong, the reason, and the name of a bucket there."""
    emulator = os.environ["STORAGE_EMULATOR_HOST"]
    if request.param != "unknown":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    with serving(authority.issue(request.param), emulator) as url:
        yield url, REASONS[request.param], bucket


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_one_variable_is_enough(
    authority: Authority, bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Whichever variable names the bundle, both clients of a bucket trust it, and so does the download of weights."""
    monkeypatch.setenv(variable, str(authority.bundle))
    with serving(authority.issue(None), os.environ["STORAGE_EMULATOR_HOST"]) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)

        with capture_logs() as logs:
            store = storage.open_store(f"gs://{bucket}")
            written = [store.write(f"{i}.jpg", b"data") for i in range(3)]
            found = dict(store.read_many(list(store.list())))
            downloaded = weights.download(f"{url}/{bucket}/0.jpg", tries=1)

    assert (dict.fromkeys(range(3), b"data"), b"data") == (found, downloaded)
    assert 3 == len(written)
    assert [] == logs  # no retry, and no read in bulk that another client had to repeat


def test_two_bundles(authority: Authority, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both variables are set, that of requests is every client's: an image may set the other one."""
    other = Authority.create(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(other.bundle))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    with serving(authority.issue(None), os.environ["STORAGE_EMULATOR_HOST"]) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        store = storage.open_store(f"gs://{bucket}")
        store.write("1.jpg", b"data")

        with capture_logs() as logs:
            assert [(0, b"data")] == list(store.read_many(list(store.list())))

    assert [] == logs


def test_storage(wrong: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket behind a wrong certificate is a mistake in the settings, which a retry does not fix."""
    url, reason, bucket = wrong
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    store = storage.open_store(f"gs://{bucket}/d")

    with capture_logs() as logs, pytest.raises(SettingsError, match=reason) as raised:
        list(store.list())

    assert [] == logs
    assert f"gs://{bucket}/d" in raised.value.message
    assert "REQUESTS_CA_BUNDLE or SSL_CERT_FILE" in raised.value.remedy


def test_token_server(wrong: tuple[str, str, str]) -> None:
    """A token server with a wrong certificate is not reported as missing credentials."""
    url, reason, _ = wrong

    def attempt(_: int) -> object:
        return Request()(f"{url}/token")

    with capture_logs() as logs, pytest.raises(SettingsError, match=reason):
        Calls(storage.RetryPolicy(), "b", AnonymousCredentials())(attempt, permission="", uri="gs://b")

    assert [] == logs


def test_weights(wrong: tuple[str, str, str]) -> None:
    """A download of weights from a server with a wrong certificate names the variables."""
    url, reason, _ = wrong

    with pytest.raises(SettingsError, match=reason) as raised:
        weights.download(f"{url}/weights.h5")

    assert f"{url}/weights.h5" in raised.value.message
    assert "SSL_CERT_FILE" in raised.value.remedy


def test_run(wrong: tuple[str, str, str], tmp_path: Path) -> None:
    """A run ends with exit 2 before it retries anything, and its last line names the variables."""
    url, reason, bucket = wrong
    environment = os.environ | {"STORAGE_EMULATOR_HOST": url}
    flags = ["--input.uri", f"gs://{bucket}/pictures", "--output.uri", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, "-m", "job", "run", *flags], env=environment, capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode, done.stderr
    assert "storage.retried" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert all(text in last for text in (reason, "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))


def test_kubernetes(wrong: tuple[str, str, str], tmp_path: Path) -> None:
    """`watch` of a cluster whose certificate is wrong ends with exit 2, and names the kubeconfig as well."""
    url, reason, _ = wrong
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [context],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "config")}

    done = subprocess.run(
        [sys.executable, "-m", "job", "watch", "flowers"], env=environment, capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode, done.stderr
    assert all(text in done.stderr for text in (reason, "certificate-authority", "SSL_CERT_FILE"))
