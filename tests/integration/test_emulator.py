"""The emulator that the demo and the tests run on."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from job.storage import emulator


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def get(url: str) -> bytes:
    """Return what is at a URL of the emulator."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # http, to this machine
        return bytes(answer.read())


def test_it_runs_as_long_as_its_context() -> None:
    """The emulator answers inside the context, also after more output than a pipe holds, and ends with it."""
    with emulator.running() as running:
        for number in range(400):
            with pytest.raises(urllib.error.HTTPError):
                get(f"{running.url}/none/{number}{'x' * 200}")
        emulator.create_bucket(running.url, "a-bucket")
        assert b'"name":"a-bucket"' in get(f"{running.url}/storage/v1/b/a-bucket")
        assert is_alive(running.pid)

    assert not is_alive(running.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_dies_with_its_parent() -> None:
    """It does not outlive a process that was killed."""
    script = """
import time
from job.storage import emulator
with emulator.running() as emulated:
    print(emulated.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        emulated = os.pidfd_open(pid)
        assert is_alive(pid)
        parent.send_signal(signal.SIGKILL)

    ended, _, _ = select.select([emulated], [], [], 60)
    os.close(emulated)
    assert ended
