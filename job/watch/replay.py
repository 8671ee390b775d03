"""A run that happens elsewhere, told to listeners here: from the lines of its log, or from its status.json."""

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

_PHASE_LINES = ("phase.advanced", "phase.finished")


class Replay:
    """Tells listeners here what a run there tells.

    Rates and ETAs are of the run's own time: what lies hours back is read in a moment.

    Args:
        listeners: who hears of it.
        phases: whether they are told of phases under way, as bars are, or of the log's lines about these.

    Attributes:
        progress: the stream, for what the watcher itself has to say.
        exit_code: what the run's last words said it exits with; None before them.
    """

    def __init__(self, listeners: Iterable[Listener], *, phases: bool) -> None:
        self.progress = Progress(listeners, clock=self._clock)
        self.exit_code: int | None = None
        self._shows_phases = phases
        self._phases: dict[str, Phase] = {}
        self._open = contextlib.ExitStack()
        self._there = 0.0  # seconds since the epoch, by the run's clock, when it was last heard of
        self._here = time.monotonic()  # the same moment here
        self._status: Mapping[str, Any] = {}

    def line(self, text: str) -> None:
        """Take one line of the log: the job's own are JSON, TensorFlow's may be anything."""
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
        if name in _PHASE_LINES and self._shows_phases:
            self._show_phase(facts, ended=name == "phase.finished")
        else:
            self.progress.event(name, severity=level, **{key: facts[key] for key in facts if key != "name"})

    def status(self, status: Mapping[str, Any]) -> None:
        """Take one status.json: what differs from the one before is told."""
        before, self._status = self._status, status
        self._set_clock(status.get("updated_at"))
        tell = self.progress.event
        if status.get("started_at") != before.get("started_at"):
            self.end()
            before = {}
            tell("run.started", run_uri=status.get("run_uri"), attempt=status.get("attempt"))
        stage, metrics = status.get("stage"), status.get("metrics")
        done = (status.get("epoch") or 1) - 1
        if stage != before.get("stage"):
            if before.get("stage"):
                tell("stage.finished", stage=before["stage"])
            if stage:
                tell("stage.started", stage=stage, epochs=status.get("epochs"), epochs_done=done)
        if metrics and metrics != before.get("metrics"):
            if self.progress.stage and self.progress.stage.name == metrics.get("stage"):
                self.progress.stage.epochs_done = metrics["epoch"] - 1  # a look every few seconds misses short epochs
            tell("epoch.finished", **metrics)
        if self._shows_phases:
            self._show_status_phase(before, status)
        if status.get("state") != before.get("state") and status.get("state") != "running":
            said = {key: status[key] for key in ("message", "reason", "remedy") if status.get(key)}
            level: log.Level = "error" if status["state"] == "failed" else "info"
            tell(f"run.{status['state']}", severity=level, run_uri=status.get("run_uri"), **said)

    def end(self) -> None:
        """End what phases are under way: their process is gone."""
        self._open.close()
        self._phases = {}

    def close(self) -> None:
        """Let the listeners finish."""
        self.end()
        self.progress.close()

    def _show_status_phase(self, before: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        if before.get("phase") != status.get("phase"):
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
            phase = self._open.enter_context(
                self.progress.phase(name, facts.get("total"), str(facts.get("unit")), done=done)
            )
            self._phases[name] = phase
        phase.advance(done - phase.done)
        if ended:
            self.end()

    def _set_clock(self, when: object) -> None:
        with contextlib.suppress(TypeError, ValueError):
            there = dt.datetime.fromisoformat(str(when)).timestamp()
            if there > self._clock():
                self._there, self._here = there, time.monotonic()

    def _clock(self) -> float:
        return self._there + time.monotonic() - self._here
