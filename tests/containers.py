"""Docker, as the tests of the image use it, and what comes of a container."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest
from paths import CLUSTER, ROOT
from started_once import started_once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE_IMAGE = "python:3.13-slim-trixie"
IMAGE = "finetune:cpu"
ENDS_WITH_THE_TESTS = "the engine ends with the tests"
TEMPORARY = ("--tmpfs", "/tmp")  # noqa: S108  # in the container


def docker(*arguments: str | Path, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Call the client that ``make image`` calls."""
    program = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else "docker"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=check, timeout=timeout)


def engine_answers() -> bool:
    """Whether there is a Docker engine that answers."""
    return shutil.which("docker") is not None and docker("version", check=False).returncode == 0


@contextlib.contextmanager
def image(run_folder: Path) -> Iterator[None]:
    """Have IMAGE from this checkout, and a Docker engine: the one that answers, else one that ../shared/cluster starts.

    Skips the test where that fails. The processes of a test run share them.

    Args:
        run_folder: of the test run.
    """

    def start() -> str:
        answers = engine_answers()
        if not answers:
            started = subprocess.run([CLUSTER / "docker-up"], capture_output=True, text=True, check=False, timeout=300)
            if started.returncode:
                pytest.skip(f"no Docker engine can run here: {started.stderr.strip()[-300:]}")
        build()
        return "" if answers else ENDS_WITH_THE_TESTS

    def stop(said: str) -> None:
        if said == ENDS_WITH_THE_TESTS:
            subprocess.run([CLUSTER / "docker-down"], check=True, timeout=60, capture_output=True)

    with started_once(run_folder / "image", start, stop):
        yield


def build(*options: str) -> None:
    """Build IMAGE from this checkout as a user does: ``make image``, with options for ``docker build``.

    Not every machine that tests can pull: where the base image is missing and ``../shared/cluster`` can make one, it
    does.
    """
    if CLUSTER.is_dir() and docker("image", "inspect", BASE_IMAGE, check=False).returncode:
        subprocess.run([CLUSTER / "base-image", BASE_IMAGE], check=True, timeout=600, capture_output=True)
    built = subprocess.run(
        ["make", "image", f"ARGS={' '.join(options)}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert 0 == built.returncode, built.stdout[-3000:]


@dataclass(frozen=True)
class Ended:
    """A container that has ended: its exit code, what it wrote, and how many seconds that took."""

    code: int
    out: str
    err: str
    seconds: float

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The lines of the log."""
        return [json.loads(line) for line in self.err.splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """Return the first event of this name; it must be there."""
        found = [event for event in self.events if name in (event["message"], event.get("event"))]
        assert found, self.err
        return found[0]


def run(*arguments: str, options: tuple[str, ...] = (), timeout: float = 180) -> Ended:
    """Run IMAGE to its end.

    Args:
        arguments: the program's.
        options: docker's.
        timeout: seconds.
    """
    name = f"finetune-test-{uuid.uuid4().hex[:12]}"
    started = time.monotonic()
    try:
        ended = docker("run", "--rm", "--name", name, *options, IMAGE, *arguments, timeout=timeout, check=False)
    finally:
        docker("rm", "--force", name, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - started)
