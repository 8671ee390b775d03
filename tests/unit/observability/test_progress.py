"""The event stream: who hears what and when, rates and ETAs. Time is a number here."""

from __future__ import annotations

import contextlib
import sys
import threading

import pytest
from structlog.testing import capture_logs

from job.observability import log
from job.observability.progress import Event, Listener, LogListener, Phase, Progress


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Recorder(Listener):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.advances: list[tuple[str, int, bool]] = []
        self.closed = 0

    def on_event(self, event: Event) -> None:
        """Remember the event."""
        self.events.append(event)

    def on_advance(self, phase: Phase) -> None:
        """Remember where the phase was."""
        self.advances.append((phase.name, phase.done, phase.ended))

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Failing(Listener):
    """Fails at everything."""

    def on_event(self, event: Event) -> None:
        """Fail."""
        raise OSError(event.name)

    def on_advance(self, phase: Phase) -> None:
        """Fail."""
        raise OSError(phase.name)

    def close(self) -> None:
        """Fail."""
        raise OSError("close")


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def test_every_listener_hears_every_event() -> None:
    """An event reaches all listeners with its name, severity and facts, whatever the facts are called."""
    first, second = Recorder(), Recorder()
    progress = Progress([first])
    progress.subscribe(second)
    progress.event("weights.loaded", severity="warning", name="MobileNetV2", event="x", self=1)
    for listener in (first, second):
        assert [("weights.loaded", "warning")] == [(event.name, event.severity) for event in listener.events]
        assert {"name": "MobileNetV2", "event": "x", "self": 1} == listener.events[0].facts


def test_a_failing_listener_is_dropped() -> None:
    """A listener that fails is dropped with one warning; the others hear everything, and nothing is raised."""
    recorder = Recorder()
    progress = Progress([Failing(), recorder])
    with capture_logs() as lines:
        progress.event("a")
        progress.event("b")
        with progress.phase("download", 2, "images") as phase:
            phase.advance()
        progress.close()
    assert ["a", "b"] == [event.name for event in recorder.events]
    assert [("listener.dropped", "warning", "Failing")] == [
        (line["event"], line["log_level"], line["listener"]) for line in lines
    ]


def test_an_event_may_be_told_while_another_is_told() -> None:
    """A signal handler, or a listener, may emit an event while another is handled, without a deadlock."""

    class Echo(Recorder):
        def on_event(self, event: Event) -> None:
            super().on_event(event)
            if event.name == "outer":
                progress.event("inner")

    echo = Echo()
    progress = Progress([echo])
    progress.event("outer")
    assert ["outer", "inner"] == [event.name for event in echo.events]


def test_the_listener_that_came_last_is_closed_first() -> None:
    """The log is the first listener, and has the last word."""
    closed: list[str] = []

    class Named(Listener):
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    progress = Progress([Named("log")])
    progress.subscribe(Named("bars"))
    progress.close()
    assert ["bars", "log"] == closed


def test_listening_for_the_time_of_a_block() -> None:
    """A listener of a block gets its events alone, and is closed at its end, however the block ends."""
    recorder = Recorder()
    progress = Progress()
    with contextlib.suppress(KeyError), progress.listening(recorder):
        progress.event("within")
        raise KeyError
    progress.event("after")
    assert (["within"], 1) == ([event.name for event in recorder.events], recorder.closed)


def test_closing_reaches_each_listener_once() -> None:
    """Closing twice closes the listeners once, and later events are dropped."""
    recorder = Recorder()
    progress = Progress([recorder])
    progress.close()
    progress.close()
    progress.event("late")
    assert (1, []) == (recorder.closed, recorder.events)


def test_a_phase_tells_its_begin_its_end_and_at_most_ten_advances_a_second(clock: Clock) -> None:
    """However small the steps are, listeners are not called for each; the end has the whole count."""
    recorder = Recorder()
    progress = Progress([recorder], clock=clock)
    with progress.phase("download", 1000, "images") as phase:
        for _ in range(1000):
            clock.now += 0.001
            phase.advance()
    assert ("download", 0, False) == recorder.advances[0]
    assert ("download", 1000, True) == recorder.advances[-1]
    assert 8 <= len(recorder.advances) <= 12


def test_a_phase_that_fails_has_ended() -> None:
    """An exception passes through, and listeners hear that the phase is over."""
    recorder = Recorder()
    progress = Progress([recorder])
    with pytest.raises(TypeError), progress.phase("download", 10, "images") as phase:
        phase.advance(len(None))  # type: ignore[arg-type]  # what goes wrong is not the point
    assert ("download", 0, True) == recorder.advances[-1]


def test_any_thread_may_advance() -> None:
    """Advances of many threads all count."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Progress().phase("download", 8000, "images") as phase:

            def work() -> None:
                for _ in range(2000):
                    phase.advance(loss=0.5)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert (8000, {"loss": 0.5}) == (phase.done, phase.facts)


def test_rate_and_eta(clock: Clock) -> None:
    """The rate is units a second, the ETA what is left at this rate; neither is known before the first advance."""
    with Progress(clock=clock).phase("download", 100, "images") as phase:
        assert (None, None) == (phase.rate, phase.eta_seconds)
        clock.now += 2.0
        phase.advance(20)
        assert (10.0, 8.0) == (phase.rate, phase.eta_seconds)
        phase.advance(90)
        assert phase.eta_seconds == 0.0


def test_the_rate_forgets_a_slow_start(clock: Clock) -> None:
    """After a minute of one step a second nothing is left of a first step that took five minutes."""
    with Progress(clock=clock).phase("train", 1000, "steps") as phase:
        clock.now += 300.0
        phase.advance()
        for _ in range(600):
            clock.now += 0.1
            phase.advance()
        assert pytest.approx(10.0) == phase.rate
        clock.now += 20.0
        phase.advance(2000)
        assert phase.rate is not None
        assert phase.rate > 50.0


def test_what_an_earlier_attempt_did_is_no_speed(clock: Clock) -> None:
    """A phase that resumes at 90 of 100 has the rate of its own work."""
    with Progress(clock=clock).phase("download", 100, "images", done=90) as phase:
        clock.now += 1.0
        phase.advance(2)
        assert (92, 2.0, 4.0) == (phase.done, phase.rate, phase.eta_seconds)


def test_without_a_total_there_is_no_eta(clock: Clock) -> None:
    """A phase without a total has a rate and no ETA."""
    with Progress(clock=clock).phase("list", None, "objects") as phase:
        clock.now += 1.0
        phase.advance(2)
        assert (2.0, None) == (phase.rate, phase.eta_seconds)


def test_an_epoch_tells_how_long_the_stage_will_take(clock: Clock) -> None:
    """The canonical line of an epoch says the seconds to the end of its stage; a value given is kept."""
    recorder = Recorder()
    progress = Progress([recorder], clock=clock)
    progress.event("epoch.finished", epoch=0)
    progress.event("stage.started", stage="fine_tuning", epochs=10, epochs_done=6)
    clock.now += 20.0
    progress.event("epoch.finished", stage="fine_tuning", epoch=7)
    clock.now += 10.0
    progress.event("epoch.finished", stage="fine_tuning", epoch=8)
    progress.event("epoch.finished", stage="fine_tuning", epoch=9, eta_seconds=4.0)
    etas = [event.facts.get("eta_seconds") for event in recorder.events if event.name == "epoch.finished"]
    assert [None, 60.0, 30.0, 4.0] == etas


def test_a_stage_counts_its_epochs(clock: Clock) -> None:
    """The epoch under way is numbered from 1; after the last it stays the last; then there is no stage."""
    progress = Progress(clock=clock)
    assert progress.stage is None
    progress.event("stage.started", stage="fine_tuning", epochs=2)
    epochs = []
    for _ in range(3):
        assert progress.stage is not None
        epochs.append((progress.stage.name, progress.stage.epoch))
        progress.event("epoch.finished", loss=0.5)
    assert [("fine_tuning", 1), ("fine_tuning", 2), ("fine_tuning", 2)] == epochs
    progress.event("stage.finished")
    assert progress.stage is None


def test_the_first_epoch_has_the_eta_of_its_phase(clock: Clock) -> None:
    """Before the first epoch ends, the stage's ETA comes from the phase under way."""
    progress = Progress(clock=clock)
    progress.event("stage.started", stage="fine_tuning", epochs=10)
    assert progress.stage is not None
    with progress.phase("train", 100, "images") as phase:
        assert progress.stage.eta_seconds(phase) is None
        clock.now += 5.0
        phase.advance(50)
        assert progress.stage.eta_seconds(phase) == pytest.approx(95.0)


def test_eta_of_the_run(clock: Clock) -> None:
    """To the end of a stage come the later stages, as they were estimated; without an estimate it is unknown."""
    recorder = Recorder()
    for epoch_seconds in ({"fine_tuning": 30.0}, {}, None):
        progress = Progress([recorder], clock=clock)
        plan = {"feature_extraction": 2, "fine_tuning": 10}
        progress.event("training.planned", epochs=plan, epoch_seconds=epoch_seconds)
        for stage, epochs in plan.items():
            progress.event("stage.started", stage=stage, epochs=epochs)
            clock.now += 4.0
            progress.event("epoch.finished", stage=stage, epoch=1)
            progress.event("stage.finished", stage=stage)
    etas = [
        (event.facts["eta_seconds"], event.facts["run_eta_seconds"])
        for event in recorder.events
        if event.name == "epoch.finished"
    ]
    assert [(4.0, 304.0), (36.0, 36.0), (4.0, None), (36.0, 36.0), (4.0, None), (36.0, 36.0)] == etas


def test_a_skipped_stage_needs_no_estimate(clock: Clock) -> None:
    """A later stage of no epochs takes no time."""
    progress = Progress(clock=clock)
    progress.event("training.planned", epochs={"feature_extraction": 2, "fine_tuning": 0})
    progress.event("stage.started", stage="feature_extraction", epochs=2)
    clock.now += 4.0
    progress.event("epoch.finished")
    assert progress.stage is not None
    assert 4.0 == progress.stage.run_eta_seconds()


def test_epochs_of_the_run() -> None:
    """The epoch under way is also counted across both stages; without a plan, in its stage alone."""
    progress = Progress()
    counts = []
    for facts in ({}, {"epochs": {"feature_extraction": 3, "fine_tuning": 5}}, {"epochs": "of another version"}):
        progress.event("training.planned", **facts)
        progress.event("stage.started", stage="fine_tuning", epochs=5, epochs_done=1)
        assert progress.stage is not None
        counts.append((progress.stage.epoch_total, progress.stage.epochs_total))
    assert [(2, 5), (5, 8), (2, 5)] == counts


def test_every_event_is_a_line_of_the_log() -> None:
    """The log has the event's name, severity and facts, also where a fact is called like the logger's arguments."""
    progress = Progress([LogListener()])
    with capture_logs() as lines:
        progress.event("epoch.finished", stage="fine_tuning", epoch=1, loss=0.5)
        progress.event("image.quarantined", severity="warning", event="x", level="y")
    assert [
        {"event": "epoch.finished", "log_level": "info", "stage": "fine_tuning", "epoch": 1, "loss": 0.5},
        {"event": "image.quarantined", "log_level": "warning", "level": "y"},
    ] == lines


@pytest.mark.parametrize(("level", "expected"), [("info", False), ("debug", True)])
def test_log_of_level_debug_needs_each_step(level: log.Level, *, expected: bool) -> None:
    """Steps are sent one by one where the log shows them, or another listener needs them."""
    log.configure(console=False, level=level)
    progress = Progress([Listener(), LogListener()])
    assert expected == progress.each_step

    progress.subscribe(Each())
    assert progress.each_step


class Each(Listener):
    """Needs each step."""

    needs_each_step = True


def test_a_long_phase_is_logged_every_ten_seconds(clock: Clock) -> None:
    """A long phase has a line every ten seconds and one at its end, with done, total, rate and ETA."""
    progress = Progress([LogListener()], clock=clock)
    with capture_logs() as lines, progress.phase("download", 100, "images") as phase:
        for _ in range(50):
            clock.now += 0.5
            phase.advance(2, lost=1)
    assert [("phase.advanced", 40), ("phase.advanced", 80), ("phase.finished", 100)] == [
        (line["event"], line["done"]) for line in lines
    ]
    expected = {"phase": "download", "total": 100, "unit": "images", "rate": 4.0, "eta_seconds": 15.0, "lost": 1}
    assert expected == {key: lines[0][key] for key in expected}


def test_short_phases_and_phases_with_bars_are_not_logged(clock: Clock) -> None:
    """A phase of nine seconds leaves no line, nor does any where bars show it."""
    short, with_bars = Progress([LogListener()], clock=clock), Progress([LogListener(None)], clock=clock)
    with capture_logs() as lines:
        for progress, seconds in ((short, 9.0), (with_bars, 90.0)):
            with progress.phase("download", 2, "images") as phase:
                clock.now += seconds
                phase.advance()
    assert [] == lines
