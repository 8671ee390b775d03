"""What the processes of a test run share: one starts it, the last one stops it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from started_once import started_once

PROCESS = """
import pathlib, sys
from started_once import started_once

folder = pathlib.Path(sys.argv[1])
with started_once(folder / "shared", lambda: "of a process", (folder / "stopped").write_text) as said:
    print(said, flush=True)
    sys.stdin.read()
"""


def process(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds what is shared until its stdin is closed; return it once it does."""
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", PROCESS, folder]
    started = subprocess.Popen(command, cwd=tests, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout
    assert "of a process\n" == started.stdout.readline()
    return started


def test_the_last_one_stops_it(tmp_path: Path) -> None:
    """While one process or context holds it, it is not started again, and it runs."""
    other = process(tmp_path)
    with started_once(tmp_path / "shared", lambda: "again", (tmp_path / "stopped").write_text) as said:
        assert "of a process" == said
        other.communicate()
        assert not (tmp_path / "stopped").exists()
    assert "of a process" == (tmp_path / "stopped").read_text()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    """After it, what may be left is started again."""
    other = process(tmp_path)
    other.kill()
    other.communicate()
    with started_once(tmp_path / "shared", lambda: "again", lambda _: None) as said:
        assert "again" == said


def test_a_start_that_fails(tmp_path: Path) -> None:
    """The next process tries it again."""
    with pytest.raises(ZeroDivisionError), started_once(tmp_path / "shared", lambda: str(1 / 0), lambda _: None):
        pass
    with started_once(tmp_path / "shared", lambda: "again", lambda _: None) as said:
        assert "again" == said
