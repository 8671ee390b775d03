"""Replays the events of a remote run to local listeners, from its log or its status.json."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from typing import TYPE_CHECKING, Any, cast, get_args

from job.observability import log
from job.observability.progress import Listener, Phase, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PHASE_EVENTS = ("phase.advanced", "phase.finished")


class Replay:
    """Replays the events of a remote run to local listeners.

    Rates and ETAs are computed with the run's clock, since hours of log may be read within a second.

    Args:
        listeners: receive the events.
        phases: replay phases as such, for progress bars; otherwise as the log's lines about them.

    Attributes:
        progress: the event stream, also for the watcher's own events.
        exit_code: that the run's final event reported; None before.
    """

    def __init__(self, listeners: Iterable[Listener], *, phases: bool) -> None:
        self.progress = Progress(listeners, clock=self._clock)
        self.exit_code: int | None = None
        self._shows_phases = phases
        self._phases: dict[str, Phase] = {}
        self._open_phases = contextlib.ExitStack()
        self._run_time = 0.0  # of the latest event, by the run's clock, in seconds since the epoch
        self._local_time = time.monotonic()  # when that event was read
        self._status: Mapping[str, Any] = {}

    def line(self, text: str) -> None:
        """Replay one line of the log: the job's own lines are JSON, TensorFlow's are arbitrary text."""
        try:
            facts = json.loads(text)
            name = str(facts.pop("event", facts["message"]))
        except (ValueError, KeyError, AttributeError, TypeError):
            self.progress.event(text or "-", severity="debug")
            return
        self._set_clock(facts.pop("time", None))
        severity = str(facts.pop("severity", "info")).lower()
        level = cast("log.Level", severity if severity in get_args(log.Level) else "info")
        message = str(facts.pop("message"))
        if message != name:
            facts["message"] = message.removeprefix(f"{name}: ")
        if name in ("run.started", "run.succeeded", "run.failed", "run.stopped"):
            self.exit_code = {"run.started": None, "run.succeeded": 0}.get(name, facts.get("exit_code"))
        if name in _PHASE_EVENTS and self._shows_phases:
            self._show_phase(facts, ended=name == "phase.finished")
        else:
            self.progress.event(name, severity=level, **{key: facts[key] for key in facts if key != "name"})

    def status(self, status: Mapping[str, Any]) -> None:
        """Replay the changes of status.json since the previous call."""
        previous, self._status = self._status, status
        self._set_clock(status.get("updated_at"))
        notify = self.progress.event
        if status.get("started_at") != previous.get("started_at"):
            self.end()
            previous = {}
            notify("run.started", run_uri=status.get("run_uri"), attempt=status.get("attempt"))
        stage, metrics = status.get("stage"), status.get("metrics")
        done = (status.get("epoch") or 1) - 1
        if stage != previous.get("stage"):
            if previous.get("stage"):
                notify("stage.finished", stage=previous["stage"])
            if stage:
                notify("stage.started", stage=stage, epochs=status.get("epochs"), epochs_done=done)
        if metrics and metrics != previous.get("metrics"):
            if self.progress.stage and self.progress.stage.name == metrics.get("stage"):
                self.progress.stage.epochs_done = metrics["epoch"] - 1  # polling misses short epochs
            notify("epoch.finished", **metrics)
        if self._shows_phases:
            self._show_status_phase(previous, status)
        if status.get("state") != previous.get("state") and status.get("state") != "running":
            facts = {key: status[key] for key in ("message", "reason", "remedy") if status.get(key)}
            level: log.Level = "error" if status["state"] == "failed" else "info"
            notify(f"run.{status['state']}", severity=level, run_uri=status.get("run_uri"), **facts)

    def end(self) -> None:
        """Close the open phases: their process has ended."""
        self._open_phases.close()
        self._phases = {}

    def close(self) -> None:
        """Let the listeners finish."""
        self.end()
        self.progress.close()

    def _show_status_phase(self, previous: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        if previous.get("phase") != status.get("phase"):
            self.end()
        if status.get("phase"):
            self._show_phase(status, ended=False)

    def _show_phase(self, facts: Mapping[str, Any], *, ended: bool) -> None:
        name, done = str(facts["phase"]), int(facts["done"] or 0)
        phase = self._phases.get(name)
        if phase is None or phase.ended or done < phase.done:
            if ended:
                return
            if phase is not None:
                self.end()
            phase = self._open_phases.enter_context(
                self.progress.phase(name, facts.get("total"), str(facts.get("unit")), done=done)
            )
            self._phases[name] = phase
        phase.advance(done - phase.done)
        if ended:
            self.end()

    def _set_clock(self, timestamp: object) -> None:
        with contextlib.suppress(TypeError, ValueError):
            run_time = dt.datetime.fromisoformat(str(timestamp)).timestamp()
            if run_time > self._clock():
                self._run_time, self._local_time = run_time, time.monotonic()

    def _clock(self) -> float:
        return self._run_time + time.monotonic() - self._local_time
