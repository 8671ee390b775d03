"""What all tests share: a real storage emulator, and a proxy before it that makes trouble."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import fault_proxy
import light_runs
import pytest
import structlog

from job.storage import emulator as emulators

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fault_proxy import Proxy


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Take back what a test has configured: its log writes to streams that end with it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def functions_run_eagerly() -> Iterator[None]:
    """Run functions eagerly: compiling one takes a hundred times as long as the few steps of most tests."""
    import tensorflow as tf  # most tests do without it

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def light() -> Iterator[None]:
    """Make whole runs light, in this process and in those that the test starts: see light_runs."""
    with light_runs.here():
        yield


@pytest.fixture
def light_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the whole runs light that the test starts as processes."""
    monkeypatch.setenv("PYTHONPATH", str(light_runs.FOLDER))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all processes of this test run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """Return the URL of a running emulator."""
    with emulators.running() as running:
        yield running.url


@pytest.fixture
def bucket(emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a new bucket in the emulator, which STORAGE_EMULATOR_HOST names during the test."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    emulators.create_bucket(emulator, name)
    return name


@pytest.fixture(scope="session")
def session_proxy(emulator: str) -> Iterator[Proxy]:
    """Return the one proxy before the emulator: it takes a second to start."""
    with fault_proxy.running(emulator) as running:
        yield running


@pytest.fixture
def proxy(session_proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Return a proxy before the emulator, which STORAGE_EMULATOR_HOST names during the test. Use it with ``bucket``."""
    assert bucket
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", session_proxy.url)
    session_proxy.calm()
    yield session_proxy
    session_proxy.calm()
