"""The run's single event stream: what happened, the progress, and the time remaining.

The pipeline sends events to a :class:`Progress`, which passes them to its listeners: the log (here), bars on a terminal
(``bars.py``), status.json (``status.py``). A listener that fails is dropped with a warning and never affects the run.

Event names are dotted, in the past tense; facts are keywords. Any name is allowed; these have a meaning here:

    device.kernels_compiled_at_first_use
                     the first use of each computation can take many minutes
    training.planned epochs (stage -> its number of epochs, in order); epoch_seconds (stage -> estimated seconds of an
                     epoch) of the stages that can be estimated before they start
    stage.started    stage, epochs; epochs_done if the stage resumes after an interruption
    stage.first_step stage, step, seconds: the first of this start, with compilation; from here on the device is busy
    step.taken       stage, epoch, step (the next ones, from 0, as in checkpoint.loaded), steps (per epoch); debug; only
                     where a listener needs each step
    epoch.finished   the canonical event: stage, epoch (from 1 in each stage), epochs (of the stage), epoch_total (from
                     1, across both stages), loss, accuracy, val_loss, val_accuracy, seconds, images_per_second,
                     input_wait, learning_rate (of its last step); added here: eta_seconds (to the end of the stage),
                     run_eta_seconds (to the end of both stages)
    stage.stopped_early
                     stage, epochs (that were trained), epochs_saved (those of the settings that were not)
    stage.finished   stage
    settings.had_no_effect
                     settings that have no effect beside the others: setting -> reason
    metrics.warned   reasons to doubt the model: code -> sentence
    run.evaluated    run_uri; validation, test, kept, stages and the codes of the warnings, from metrics.json in short,
                     about the published model
    run.succeeded, run.failed, run.stopped
                     the last event of a run; message, and for a failure reason and remedy
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Clock: TypeAlias = "Callable[[], float]"
"""Monotonic seconds."""

_RATE_WINDOW = 30.0  # seconds: long enough to be stable, short enough to forget the slow first step
_RATE_SAMPLE = 0.25  # seconds between two samples
_NOTIFY_INTERVAL = 0.1  # seconds between two notifications: as fast as an eye can follow


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the run.

    Attributes:
        name: dotted, past tense.
        severity: its log level.
        facts: its details.
        stage: the stage in progress, if any; a live view.
    """

    name: str
    severity: log.Level
    facts: Mapping[str, object]
    stage: Stage | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a run.

    Attributes:
        epochs: stage -> its number of epochs, in the order of the stages.
        epoch_seconds: stage -> estimated seconds of an epoch; not for every stage.
    """

    epochs: Mapping[str, int] = field(default_factory=dict)
    epoch_seconds: Mapping[str, float] = field(default_factory=dict)

    def epochs_before(self, stage: str) -> int:
        """Return the number of epochs of the stages before a stage."""
        return sum(epochs for _, epochs in itertools.takewhile(lambda item: item[0] != stage, self.epochs.items()))

    def seconds_after(self, stage: str) -> float | None:
        """Return the estimated seconds of the stages after a stage; None if unknown."""
        if stage not in self.epochs:
            return None
        later = {
            name: epochs for name, epochs in list(self.epochs.items())[[*self.epochs].index(stage) + 1 :] if epochs
        }
        if later.keys() - self.epoch_seconds.keys():
            return None
        return sum(epochs * self.epoch_seconds[name] for name, epochs in later.items())


class Stage:
    """A stage in progress, counted in epochs.

    Attributes:
        name: "feature_extraction" or "fine_tuning".
        epochs: their total number; 0 if unknown.
        epochs_done: number of finished epochs.
        plan: of the run.
        facts: those of the last finished epoch.
        learning_rate: that of the settings; None if unknown.
    """

    learning_rate: float | None = None

    def __init__(self, name: str, *, epochs: int, epochs_done: int, plan: Plan, clock: Clock) -> None:
        self.name = name
        self.epochs = epochs
        self.epochs_done = epochs_done
        self.plan = plan
        self.facts: Mapping[str, object] = {}
        self._clock = clock
        self._first_epoch = epochs_done
        self._started = self._epoch_started = clock()

    @property
    def epoch(self) -> int:
        """The number of the current epoch, from 1; after the last epoch, its number."""
        return min(self.epochs_done + 1, self.epochs)

    @property
    def epoch_total(self) -> int:
        """The number of the current epoch, counted across all stages."""
        return self.plan.epochs_before(self.name) + self.epoch

    @property
    def epochs_total(self) -> int:
        """The number of epochs of all stages."""
        return max(sum(self.plan.epochs.values()), self.epochs)

    def finish_epoch(self, facts: Mapping[str, object]) -> None:
        """Count a finished epoch, and store its facts."""
        self.epochs_done += 1
        self.facts = facts
        self._epoch_started = self._clock()

    def eta_seconds(self, phase: Phase | None = None) -> float | None:
        """Estimate the seconds to the end of the stage.

        From the mean epoch so far; in the first epoch from ``phase``, as if the epoch ended with it. None if unknown.
        """
        if self.epochs_done > self._first_epoch:
            epoch_seconds = (self._epoch_started - self._started) / (self.epochs_done - self._first_epoch)
        elif phase is not None and phase.total and phase.rate:
            # note: an epoch begun by an earlier start takes longer than observed here, and so does one that is in
            # validation
            observed = self._clock() - self._epoch_started + (phase.eta_seconds or 0.0)
            epoch_seconds = max(phase.total / phase.rate, observed)
        else:
            return None
        in_this_epoch = min(self._clock() - self._epoch_started, epoch_seconds)
        return max(0.0, (self.epochs - self.epochs_done) * epoch_seconds - in_this_epoch)

    def run_eta_seconds(self, phase: Phase | None = None) -> float | None:
        """Estimate the seconds to the end of the last stage; None if unknown. See `eta_seconds`."""
        eta, later = self.eta_seconds(phase), self.plan.seconds_after(self.name)
        return None if eta is None or later is None else eta + later


class Phase:
    """A countable piece of work, created by :meth:`Progress.phase`. Any thread may advance it.

    Attributes:
        name: of the work.
        unit: of ``done`` and ``total``, in the plural: "images", "steps", "bytes".
        total: number of units; None if unknown.
        done: number of finished units.
        facts: the latest facts, such as the loss.
        stage: the stage it belongs to, if any.
        ended: whether the work is over, complete or not.
    """

    def __init__(
        self, name: str, *, total: int | None, unit: str, done: int, stage: Stage | None, clock: Clock
    ) -> None:
        self.name = name
        self.unit = unit
        self.total = total
        self.done = done
        self.facts: dict[str, object] = {}
        self.stage = stage
        self.ended = False
        self.notify: Callable[[Phase], None] = lambda _: None
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may read it while its thread holds the lock
        self._started = self._last_notified = clock()
        self._samples = deque([(self._started, done)])

    def advance(self, n: int = 1, **facts: object) -> None:
        """Count ``n`` more units, with facts to show beside them."""
        now = self._clock()
        with self._lock:
            self.done += n
            if facts:
                self.facts = self.facts | facts  # a new dict: another thread may be reading the old one
            self._sample(now)
            if now - self._last_notified < _NOTIFY_INTERVAL:
                return
            self._last_notified = now
        self.notify(self)

    @property
    def seconds(self) -> float:
        """Seconds since the phase began."""
        return self._clock() - self._started

    @property
    def rate(self) -> float | None:
        """Units per second over about the last half minute; None until the first advance."""
        with self._lock:
            (start, done_at_start), (end, done_at_end) = self._samples[0], self._samples[-1]
        return (done_at_end - done_at_start) / (end - start) if end > start else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the current rate; None if rate or total is unknown."""
        rate = self.rate
        return max(0, self.total - self.done) / rate if self.total is not None and rate else None

    def _sample(self, now: float) -> None:
        if len(self._samples) > 1 and now - self._samples[-2][0] < _RATE_SAMPLE:
            self._samples.pop()
        self._samples.append((now, self.done))
        while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_WINDOW:
            self._samples.popleft()


class Listener:
    """Receives every event. Override the handlers you need; calls are serialized.

    Attributes:
        needs_each_step: of `step.taken`: then each step is a call of its own, and short steps take longer.
    """

    needs_each_step = False

    def on_event(self, event: Event) -> None:
        """Handle an event."""

    def on_advance(self, phase: Phase) -> None:
        """Handle the start of a phase, an advance (at most ten per second), or its end."""

    def close(self) -> None:
        """Handle the end of the stream."""


class Progress:
    """The event stream. Thread-safe; it never raises.

    Args:
        listeners: receive every event. More may be subscribed later.
        clock: for rates and ETAs.
    """

    def __init__(self, listeners: Iterable[Listener] = (), *, clock: Clock = time.monotonic) -> None:
        self.stage: Stage | None = None
        self._plan = Plan()
        self._listeners = list(listeners)
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may send an event while its thread holds the lock

    def subscribe(self, listener: Listener) -> None:
        """Add a listener for the events from now on."""
        with self._lock:
            self._listeners.append(listener)

    @property
    def each_step(self) -> bool:
        """Whether a listener needs `step.taken` for each step."""
        return any(listener.needs_each_step for listener in self._listeners)

    @contextlib.contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Have a listener for the events of a block, and close it afterwards."""
        self.subscribe(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners = [other for other in self._listeners if other is not listener]
                listener.close()

    def event(self, name: str, /, *, severity: log.Level = "info", **facts: object) -> None:
        """Send an event. See the module's docstring for the names that have a meaning."""
        with self._lock:
            if name == "training.planned":
                self._plan = _read_plan(facts)
            elif name == "stage.started":
                self._start_stage(facts)
            elif name == "epoch.finished" and self.stage is not None:
                self.stage.finish_epoch(facts)
                facts.setdefault("eta_seconds", _rounded(self.stage.eta_seconds()))
                facts.setdefault("run_eta_seconds", _rounded(self.stage.run_eta_seconds()))
            event = Event(name, severity, facts, self.stage)
            if name == "stage.finished":
                self.stage = None
            self._notify(lambda listener: listener.on_event(event))

    @contextlib.contextmanager
    def phase(self, name: str, total: int | None, unit: str, *, done: int = 0) -> Iterator[Phase]:
        """Count a piece of work: ``with progress.phase("download", len(objects), "images") as phase: phase.advance()``.

        Args:
            name: of the work.
            total: number of units; None if unknown.
            unit: in the plural.
            done: number of units finished by an earlier attempt, which do not count for the rate.
        """
        phase = Phase(name, total=total, unit=unit, done=done, stage=self.stage, clock=self._clock)
        phase.notify = lambda phase: self._notify(lambda listener: listener.on_advance(phase))
        phase.notify(phase)
        try:
            yield phase
        finally:
            phase.ended = True
            phase.notify(phase)

    def close(self) -> None:
        """Close every listener, the last one first, so that the log has the last word. A second call does nothing."""
        with self._lock:
            self._listeners.reverse()
            self._notify(lambda listener: listener.close())
            self._listeners = []

    def _start_stage(self, facts: Mapping[str, object]) -> None:
        epochs, epochs_done = facts.get("epochs"), facts.get("epochs_done")
        self.stage = Stage(
            str(facts.get("stage")),
            epochs=epochs if isinstance(epochs, int) else 0,
            epochs_done=epochs_done if isinstance(epochs_done, int) else 0,
            plan=self._plan,
            clock=self._clock,
        )
        learning_rate = facts.get("learning_rate")
        self.stage.learning_rate = learning_rate if isinstance(learning_rate, float) else None

    def _notify(self, call: Callable[[Listener], None]) -> None:
        with self._lock:
            for listener in list(self._listeners):
                try:
                    call(listener)
                except Exception:  # noqa: BLE001  # no error may stop the training
                    self._listeners = [other for other in self._listeners if other is not listener]
                    log.get().warning("listener.dropped", listener=type(listener).__name__, exc_info=True)
                    with contextlib.suppress(Exception):
                        listener.close()


class LogListener(Listener):
    """Logs every event, and the progress of long phases.

    Args:
        interval: seconds between two lines of one phase; shorter phases are not logged. None: bars show the progress.
    """

    def __init__(self, interval: float | None = 10.0) -> None:
        self.needs_each_step = log.get().is_enabled_for(logging.DEBUG)
        self._interval = interval
        self._logged: dict[Phase, float] = {}

    def on_event(self, event: Event) -> None:
        """Log the event."""
        logger = log.get().bind(**event.facts)
        logger.log(getattr(logging, event.severity.upper(), logging.INFO), event.name)

    def on_advance(self, phase: Phase) -> None:
        """Log a line if one is due, and a last one if there were lines before."""
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


def _read_plan(facts: Mapping[str, object]) -> Plan:
    """Return the plan of a run; an empty one from the facts of another version, replayed by `finetune watch`."""
    epochs, epoch_seconds = facts.get("epochs"), facts.get("epoch_seconds") or {}
    if not isinstance(epochs, Mapping) or not isinstance(epoch_seconds, Mapping):
        return Plan()
    return Plan(dict(epochs), dict(epoch_seconds))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
