"""What all processes of a test run share, and one of them starts: an engine with an image, a cluster."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextlib.contextmanager
def started_once(folder: Path, start: Callable[[], str], stop: Callable[[str], None]) -> Iterator[str]:
    """Have what the first process starts, while others wait for it, and what the last one stops.

    If the start fails, the next process tries it again. A process that was killed does not count.

    Args:
        folder: the same for all processes of a test run, and for nothing else.
        start: starts it, and returns what ``stop`` and the other processes must know.
        stop: stops it, with what ``start`` returned.

    Yields:
        What ``start`` returned.
    """
    holders, started = folder / "holders", folder / "started"
    holders.mkdir(parents=True, exist_ok=True)
    mine = holders / f"{os.getpid()}-{uuid.uuid4().hex}"

    def is_held() -> bool:
        return any(os.path.exists(f"/proc/{one.name.partition('-')[0]}") for one in holders.iterdir())  # noqa: PTH110

    with alone(folder):
        if not is_held():
            started.write_text(start(), encoding="utf-8")
        mine.touch()
        said = started.read_text(encoding="utf-8")
    try:
        yield said
    finally:
        with alone(folder):
            mine.unlink()
            if not is_held():
                stop(said)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let no other process that names the same folder into the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
