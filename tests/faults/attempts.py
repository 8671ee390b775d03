"""The job as a process that can be watched, stopped and started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from pathlib import Path


class Attempt:
    """One start of the job. Use it as a context manager: nothing is left running.

    Args:
        arguments: flags of ``finetune run``.
        within: a command that it is started by.
        environment: added to this process's own.

    Attributes:
        events: the lines of its log so far.
    """

    def __init__(self, arguments: Sequence[str | Path], within: Sequence[str] = (), **environment: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [*within, sys.executable, "-m", "job", "run", *map(str, arguments)],
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def wait_for(self, name: str, count: int = 1, seconds: float = 240) -> dict[str, Any] | None:
        """Wait for an event to come for the count-th time; return it, None where the process ended without."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._named(name)) >= count or self._ended, seconds)
            found = self._named(name)
        return found[count - 1] if len(found) >= count else None

    def stop(self, number: signal.Signals) -> float:
        """Send a signal, wait for the end, and return the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.wait()
        return time.monotonic() - started

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(300)
        self._reader.join()
        return code

    def names(self) -> list[str]:
        """Return the names of all events so far."""
        return [event.get("event", event["message"]) for event in list(self.events)]

    def _named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event", event["message"]) == name]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
