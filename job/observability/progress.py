"""The run's one event stream: what happened, how far it is, how long it will take.

The pipeline tells a :class:`Progress`; listeners tell everyone else: the log (here), bars on a terminal (``bars.py``),
status.json (``status.py``). A listener that fails is dropped with a warning and never disturbs the run.

Events are dotted and past tense, with facts as keywords. Any name will do; some are understood:

    device.kernels_compiled_at_first_use
                     the first use of each computation can take many minutes
    stage.started    stage, epochs; epochs_done where the stage goes on after an interruption
    stage.first_step stage, step, seconds: this start's first, compilation counted; from here on the device is busy
    step.taken       stage, epoch, step (that come next, from 0, as in checkpoint.loaded), steps (of an epoch); debug
    epoch.finished   the canonical line: stage, epoch (from 1), loss, accuracy, val_loss, val_accuracy, seconds,
                     images_per_second; eta_seconds (to the end of the stage) is added here
    stage.finished   stage
    run.succeeded, run.failed, run.stopped
                     the last event of a run; message, and for a failure reason and remedy
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Clock: TypeAlias = "Callable[[], float]"
"""Seconds since some moment, never going back."""

_RATE_WINDOW = 30.0  # seconds: long enough to be calm, short enough to forget how slow the first step was
_RATE_SAMPLE = 0.25  # seconds between the samples kept
_TELL_INTERVAL = 0.1  # seconds: as often as an eye can follow, however small the steps are


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        name: dotted, past tense.
        severity: how much it matters, as the log has it.
        facts: what there is to know about it.
        stage: the stage it happened in, if any; a live view.
    """

    name: str
    severity: log.Level
    facts: Mapping[str, object]
    stage: Stage | None


class Stage:
    """A stage under way, counted in epochs.

    Attributes:
        name: "feature_extraction" or "fine_tuning".
        epochs: how many there will be; 0 where that is not known.
        epochs_done: how many are finished.
        facts: what the last finished epoch told.
    """

    def __init__(self, name: str, *, epochs: int, epochs_done: int, clock: Clock) -> None:
        self.name = name
        self.epochs = epochs
        self.epochs_done = epochs_done
        self.facts: Mapping[str, object] = {}
        self._clock = clock
        self._first = epochs_done
        self._started = self._epoch_started = clock()

    @property
    def epoch(self) -> int:
        """The number of the epoch under way, from 1; after the last one, the last."""
        return min(self.epochs_done + 1, self.epochs)

    def finish_epoch(self, facts: Mapping[str, object]) -> None:
        """Count one epoch more, with what it told."""
        self.epochs_done += 1
        self.facts = facts
        self._epoch_started = self._clock()

    def eta_seconds(self, phase: Phase | None = None) -> float | None:
        """Estimate the seconds to the end of the stage.

        From the mean epoch so far. In the first epoch from ``phase``, as if the epoch ended with it; None where that
        says nothing either.
        """
        if self.epochs_done > self._first:
            epoch_seconds = (self._epoch_started - self._started) / (self.epochs_done - self._first)
        elif phase is not None and phase.total and phase.rate:
            # note: an epoch that was begun by an earlier start is longer than what is seen of it, and so is one that
            # is in validation
            seen = self._clock() - self._epoch_started + (phase.eta_seconds or 0.0)
            epoch_seconds = max(phase.total / phase.rate, seen)
        else:
            return None
        in_this_epoch = min(self._clock() - self._epoch_started, epoch_seconds)
        return max(0.0, (self.epochs - self.epochs_done) * epoch_seconds - in_this_epoch)


class Phase:
    """A piece of work that can be counted. Made by :meth:`Progress.phase`; any thread may advance it.

    Attributes:
        name: what is being done.
        unit: of ``done`` and ``total``, in the plural: "images", "steps", "bytes".
        total: how much there is; None where nobody knows.
        done: how much is finished.
        facts: the latest facts: the loss, say.
        stage: the stage it belongs to, if any.
        ended: whether the work is over, finished or not.
    """

    def __init__(  # made in one place
        self, name: str, *, total: int | None, unit: str, done: int, stage: Stage | None, clock: Clock
    ) -> None:
        self.name = name
        self.unit = unit
        self.total = total
        self.done = done
        self.facts: dict[str, object] = {}
        self.stage = stage
        self.ended = False
        self.tell: Callable[[Phase], None] = lambda _: None
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may ask while its thread holds the lock
        self._started = self._told = clock()
        self._samples = deque([(self._started, done)])

    def advance(self, n: int = 1, **facts: object) -> None:
        """Count ``n`` units more, with the facts to show beside them."""
        now = self._clock()
        with self._lock:
            self.done += n
            if facts:
                self.facts = self.facts | facts  # a new one: others may be reading the old
            self._sample(now)
            if now - self._told < _TELL_INTERVAL:
                return
            self._told = now
        self.tell(self)

    @property
    def seconds(self) -> float:
        """Seconds since the phase began."""
        return self._clock() - self._started

    @property
    def rate(self) -> float | None:
        """Units a second over about the last half minute; None until the first advance."""
        with self._lock:
            (start, done_then), (end, done_now) = self._samples[0], self._samples[-1]
        return (done_now - done_then) / (end - start) if end > start else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at this rate; None where rate or total is not known."""
        rate = self.rate
        return max(0, self.total - self.done) / rate if self.total is not None and rate else None

    def _sample(self, now: float) -> None:
        if len(self._samples) > 1 and now - self._samples[-2][0] < _RATE_SAMPLE:
            self._samples.pop()
        self._samples.append((now, self.done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_WINDOW:
            self._samples.popleft()


class Listener:
    """What hears of everything. A subclass overrides what it is interested in; calls never overlap."""

    def on_event(self, event: Event) -> None:
        """Hear of ``event``."""

    def on_advance(self, phase: Phase) -> None:
        """Hear that ``phase`` began, advanced (at most every tenth of a second) or ended."""

    def close(self) -> None:
        """Hear that nothing more will come."""


class Progress:
    """The stream itself. Any thread may tell it things; it never raises.

    Args:
        listeners: who hears of everything. More may be subscribed later.
        clock: seconds, for rates and ETAs.
    """

    def __init__(self, listeners: Iterable[Listener] = (), *, clock: Clock = time.monotonic) -> None:
        self.stage: Stage | None = None
        self._listeners = list(listeners)
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may tell while its thread holds the lock

    def subscribe(self, listener: Listener) -> None:
        """Let ``listener`` hear of everything from now on."""
        with self._lock:
            self._listeners.append(listener)

    def event(self, name: str, /, *, severity: log.Level = "info", **facts: object) -> None:
        """Tell that something happened. See the module's docstring for the names that are understood."""
        with self._lock:
            if name == "stage.started":
                self._start_stage(facts)
            elif name == "epoch.finished" and self.stage is not None:
                self.stage.finish_epoch(facts)
                facts.setdefault("eta_seconds", _rounded(self.stage.eta_seconds()))
            event = Event(name, severity, facts, self.stage)
            if name == "stage.finished":
                self.stage = None
            self._tell(lambda listener: listener.on_event(event))

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None, unit: str, *, done: int = 0) -> Iterator[Phase]:
        """Count a piece of work: ``with progress.phase("download", len(objects), "images") as phase: phase.advance()``.

        Args:
            name: what is being done.
            total: how many units there are; None where nobody knows.
            unit: the units, in the plural.
            done: how many were finished before, in an earlier attempt: they do not count for the rate.
        """
        phase = Phase(name, total=total, unit=unit, done=done, stage=self.stage, clock=self._clock)
        phase.tell = lambda phase: self._tell(lambda listener: listener.on_advance(phase))
        phase.tell(phase)
        try:
            yield phase
        finally:
            phase.ended = True
            phase.tell(phase)

    def close(self) -> None:
        """Let every listener finish. A second call does nothing."""
        with self._lock:
            self._tell(lambda listener: listener.close())
            self._listeners = []

    def _start_stage(self, facts: Mapping[str, object]) -> None:
        epochs, done = facts.get("epochs"), facts.get("epochs_done")
        self.stage = Stage(
            str(facts.get("stage")),
            epochs=epochs if isinstance(epochs, int) else 0,
            epochs_done=done if isinstance(done, int) else 0,
            clock=self._clock,
        )

    def _tell(self, tell: Callable[[Listener], None]) -> None:
        with self._lock:
            for listener in list(self._listeners):
                try:
                    tell(listener)
                except Exception:  # noqa: BLE001  # whatever it is, training goes on
                    self._listeners = [other for other in self._listeners if other is not listener]
                    log.get().warning("listener.dropped", listener=type(listener).__name__, exc_info=True)
                    with contextlib.suppress(Exception):
                        listener.close()


class LogListener(Listener):
    """Writes every event as a line of the log, and how far a long phase is.

    Args:
        interval: seconds between two lines of one phase; None where bars show it. Shorter phases get no line.
    """

    def __init__(self, interval: float | None = 10.0) -> None:
        self._interval = interval
        self._logged: dict[Phase, float] = {}

    def on_event(self, event: Event) -> None:
        """Write the event's line."""
        logger = log.get().bind(**event.facts)
        logger.log(getattr(logging, event.severity.upper(), logging.INFO), event.name)

    def on_advance(self, phase: Phase) -> None:
        """Write a line if it is time, and a last one if there were lines before."""
        if self._interval is None:
            return
        last = self._logged.get(phase, 0.0)
        if phase.ended:
            self._logged.pop(phase, None)
        due = last > 0 if phase.ended else phase.seconds - last >= self._interval
        if not due:
            return
        if not phase.ended:
            self._logged[phase] = phase.seconds
        logger = log.get().bind(**phase.facts)
        logger.info(
            "phase.finished" if phase.ended else "phase.advanced",
            phase=phase.name,
            done=phase.done,
            total=phase.total,
            unit=phase.unit,
            rate=_rounded(phase.rate),
            seconds=_rounded(phase.seconds),
            eta_seconds=_rounded(phase.eta_seconds),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
