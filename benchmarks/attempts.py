"""The job as a process that can be watched, stopped and started again.

As a program, `python tests/faults/attempts.py run …` is the job itself, with a line in its log for each training step:

    step.taken    stage, epoch, step (that come next, as in checkpoint.loaded), steps (of an epoch)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Position = tuple[str, int, int]
"""Stage, epoch and step that come next, the last two from 0: what a checkpoint calls its own."""

SIGNAL_AT = "ATTEMPT_SIGNAL_AT"
"""Environment variable: "SIGTERM fine_tuning 1 3" is sent by the process to itself once it is there."""


def position(facts: Mapping[str, Any]) -> Position:
    """Return the position that an event, or the state in an index of checkpoints, tells."""
    return facts["stage"], facts["epoch"], facts["step"]


class Attempt:
    """One start of the job. Use it as a context manager: nothing is left running.

    Args:
        arguments: flags of ``finetune run``.
        within: a command that it is started by.
        counting: have a line in the log for each step.
        signal_at: a signal, and after which step the process gets it: at once, before anything else is done.
        environment: added to this process's own.

    Attributes:
        events: the lines of its log so far.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        within: Sequence[str] = (),
        *,
        counting: bool = False,
        signal_at: tuple[signal.Signals, Position] | None = None,
        **environment: str,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._changed = threading.Condition()
        self._ended = False
        program = (__file__,) if counting or signal_at else ("-m", "job")
        if signal_at:
            number, where = signal_at
            environment[SIGNAL_AT] = " ".join(map(str, (number.name, *where)))
        self.process = subprocess.Popen(
            [*within, sys.executable, *program, "run", *map(str, arguments)],
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

    def loaded(self) -> Position | None:
        """Return where it went on; None where it did not, or not yet."""
        found = self._named("checkpoint.loaded")
        return position(found[0]) if found else None

    def steps(self) -> list[Position]:
        """Return where it was after each step it took; it must be counting."""
        return [position(event) for event in self._named("step.taken")]

    def _named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event.get("event", event["message"]) == name]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def count_steps() -> int:
    """Be the job, and tell of each step when it is taken; return its exit code."""
    from job import __main__, log, progress

    name, _, where = os.environ.get(SIGNAL_AT, "").partition(" ")
    advance = progress.Phase.advance

    def tell_and_advance(phase: progress.Phase, n: int = 1, **facts: object) -> None:
        if "step" in facts:
            assert phase.stage
            stage, epoch, step = phase.stage.name, phase.stage.epochs_done, facts["step"]
            log.get().info("step.taken", stage=stage, epoch=epoch, step=step, steps=facts["steps"])
            if f"{stage} {epoch} {step}" == where:
                signal.raise_signal(signal.Signals[name])
        advance(phase, n, **facts)

    progress.Phase.advance = tell_and_advance
    return __main__.main()


if __name__ == "__main__":
    sys.exit(count_steps())
