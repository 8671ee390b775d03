"""The job as a process that can be watched, stopped and started again: for fault tests, benchmarks and `make soak`.

As a program, `python benchmarks/attempts.py run …` is the job itself, which sends itself a signal after a step.
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

    from job.config.settings import LogSettings

Position = tuple[str, int, int]
"""Stage, epoch and step that come next, the last two from 0: what a checkpoint calls its own."""

SIGNAL_AT = "ATTEMPT_SIGNAL_AT"
"""Environment variable: "SIGTERM fine_tuning 1 3" is sent by the process to itself once it is there."""


def position(facts: Mapping[str, Any]) -> Position:
    """Return the position that an event, or the state in an index of checkpoints, reports."""
    return facts["stage"], facts["epoch"], facts["step"]


class Attempt:
    """One start of the job. Use it as a context manager: nothing is left running.

    Args:
        arguments: flags of ``finetune run``.
        within: a command that it is started by.
        program: what Python executes instead of the job; it gets the arguments.
        counting: have a line in the log for each step: ``step.taken``.
        signal_at: a signal, and after which step the process gets it: at once, before anything else is done.
        environment: added to this process's own.

    Attributes:
        began: when it was started, as `time.time` has it.
        events: the lines of its log so far.
        others: what else it wrote, as libraries in C do.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        within: Sequence[str] = (),
        *,
        program: Sequence[str] = ("-m", "job"),
        counting: bool = False,
        signal_at: tuple[signal.Signals, Position] | None = None,
        **environment: str,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.others: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        if signal_at:
            number, where = signal_at
            program = (__file__,)
            environment[SIGNAL_AT] = " ".join(map(str, (number.name, *where)))
        level = ("--log.level", "debug") if counting or signal_at else ()
        self.began = time.time()
        self.process = subprocess.Popen(
            [*within, sys.executable, *program, "run", *map(str, arguments), *level],
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

    def wait_for(self, name: str, count: int = 1, seconds: float = 240, **facts: object) -> dict[str, Any] | None:
        """Wait for an event with these facts for the count-th time; return it, None where the process ended without."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.named(name, **facts)) >= count or self._ended, seconds)
            found = self.named(name, **facts)
        return found[count - 1] if len(found) >= count else None

    def stop(self, number: signal.Signals) -> float:
        """Send a signal, wait for the end, and return the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(300)
        seconds = time.monotonic() - started
        self._reader.join()
        return seconds

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(300)
        self._reader.join()
        return code

    def names(self) -> list[str]:
        """Return the names of all events so far."""
        return [_name(event) for event in list(self.events)]

    def named(self, name: str, **facts: object) -> list[dict[str, Any]]:
        """Return the events of a name, with these facts, so far."""
        return [event for event in list(self.events) if _name(event) == name and facts.items() <= event.items()]

    def loaded(self) -> Position | None:
        """Return where it resumed; None where it did not, or not yet."""
        found = self.named("checkpoint.loaded")
        return position(found[0]) if found else None

    def steps(self) -> list[Position]:
        """Return where it was after each step it took; it must be counting."""
        return [position(event) for event in self.named("step.taken")]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.others.append(line.decode(errors="replace"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _name(event: Mapping[str, Any]) -> str:
    name: str = event.get("event", event["message"])
    return name


def main() -> int:
    """Be the job, and send this process a signal once it is where it is to be; return the exit code."""
    from job import __main__
    from job.commands import cli
    from job.observability import progress

    name, _, where = os.environ[SIGNAL_AT].partition(" ")

    class Sender(progress.Listener):
        needs_each_step = True

        def on_event(self, event: progress.Event) -> None:
            if event.name == "step.taken" and where == " ".join(map(str, position(event.facts))):
                signal.raise_signal(signal.Signals[name])

    listen = cli.listen

    def listen_and_send(settings: LogSettings) -> progress.Progress:
        stream = listen(settings)
        stream.subscribe(Sender())
        return stream

    cli.listen = listen_and_send
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
