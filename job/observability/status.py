"""status.json: the state of a run, published beside its results."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Final

from job.observability import log
from job.observability.progress import Clock, Event, Listener, Phase, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_STATES: Final = {"run.succeeded": "succeeded", "run.failed": "failed", "run.stopped": "stopped"}


class StatusFile(Listener):
    """Updates status.json in its own thread: a slow store never delays training.

    The document is one JSON object; unknown values are null:

        state                        "running", "succeeded", "failed" or "stopped"
        message, reason, remedy      from the last event of the run; reason and remedy only after a failure
        run_id, run_uri, attempt
        stage, epoch, epochs         the current epoch, from 1 in each stage
        epoch_total, epochs_total    the current epoch, from 1 across both stages
        eta_seconds                  to the end of the stage, else of the phase
        run_eta_seconds              to the end of both stages
        phase, done, total, unit, rate
        step, steps                  if the phase has these facts
        metrics                      the facts of the last "epoch.finished"
        started_at, updated_at       RFC 3339, UTC

    Args:
        write: stores the document. Only the first failure is logged; later documents are still written.
        run_id: the run's name.
        run_uri: location of its results.
        attempt: number of this start of the run, from 1, if known.
        interval: minimum seconds between two writes. Google's storage allows about one write a second per object.
        patience: seconds that `close` waits for the last write.
        clock: for the interval.
        now: returns the time in RFC 3339 format, for the document.
    """

    def __init__(  # noqa: PLR0913  # all but two have their defaults
        self,
        write: Callable[[bytes], object],
        *,
        run_id: str,
        run_uri: str,
        attempt: int | None = None,
        interval: float = 5.0,
        patience: float = 3.0,
        clock: Clock = time.monotonic,
        now: Callable[[], str] = log.timestamp,
    ) -> None:
        self._write = write
        self._interval = interval
        self._patience = patience
        self._clock = clock
        self._now = now
        self._identity = {"run_id": run_id, "run_uri": run_uri, "attempt": attempt, "started_at": now()}
        self._outcome: dict[str, object] = {"state": "running", "message": None}
        self._metrics: Mapping[str, object] | None = None
        self._stage: Stage | None = None
        self._phase: Phase | None = None
        self._due = 0.0  # clock time; the first write is due at once
        self._changed = True
        self._closing = False
        self._failed = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._write_updates, name="status", daemon=True)
        self._thread.start()

    def on_event(self, event: Event) -> None:
        """Update the document from the event."""
        with self._condition:
            self._stage = None if event.name == "stage.finished" else event.stage
            if event.name == "epoch.finished":
                self._metrics = event.facts
            if event.name in _STATES:
                details = {key: event.facts[key] for key in ("message", "reason", "remedy") if key in event.facts}
                self._outcome |= {"state": _STATES[event.name]} | details
            self._touch()

    def on_advance(self, phase: Phase) -> None:
        """Update the document's phase."""
        with self._condition:
            if not phase.ended:
                self._phase = phase
            elif self._phase is phase:  # another thread's phase may still be in progress
                self._phase = None
            self._touch()

    def close(self) -> None:
        """Write the last document, and wait for it for a limited time."""
        with self._condition:
            self._closing = True
            self._touch()
        self._thread.join(self._patience)

    def _touch(self) -> None:
        self._changed = True
        self._condition.notify()

    def _write_updates(self) -> None:
        closing = False
        while not closing:
            with self._condition:
                while not (self._changed and self._clock() >= self._due) and not self._closing:
                    self._condition.wait(self._due - self._clock() if self._changed else None)
                closing, self._changed = self._closing, False
                self._due = self._clock() + self._interval
                document = self._document()
            try:
                self._write(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n")
            except Exception as error:  # noqa: BLE001  # no error may stop the training
                if not self._failed:
                    log.get().warning("status.write_failed", error=error, run_uri=self._identity["run_uri"])
                self._failed = True

    def _document(self) -> object:
        stage, phase = self._stage, self._phase
        eta = stage.eta_seconds(phase) if stage else phase.eta_seconds if phase else None
        run_eta = stage.run_eta_seconds(phase) if stage else None
        facts = phase.facts if phase else {}
        return log.plain(
            self._outcome
            | self._identity
            | {
                "stage": stage and stage.name,
                "epoch": stage and stage.epoch,
                "epochs": stage and stage.epochs,
                "epoch_total": stage and stage.epoch_total,
                "epochs_total": stage and stage.epochs_total,
                "eta_seconds": eta and round(eta, 1),
                "run_eta_seconds": run_eta and round(run_eta, 1),
                "phase": phase and phase.name,
                "done": phase and phase.done,
                "total": phase and phase.total,
                "unit": phase and phase.unit,
                "rate": phase and phase.rate and round(phase.rate, 1),
                "step": facts.get("step"),
                "steps": facts.get("steps"),
                "metrics": self._metrics,
                "updated_at": self._now(),
            }
        )
