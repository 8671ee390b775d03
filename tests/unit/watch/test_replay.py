"""Events of a run elsewhere, replayed to listeners here from its log and its status.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from job.observability.progress import Event, Listener, Phase
from job.watch.replay import Replay


class Ear(Listener):
    """Remembers what it hears.

    Attributes:
        events: (name, facts) of each event.
        phases: (name, done, total, ended) at each advance.
        etas: the stage's ETA at each event.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.phases: list[tuple[str, int, int | None, bool]] = []
        self.etas: list[float | None] = []

    def on_event(self, event: Event) -> None:
        """Remember an event."""
        self.events.append((event.name, dict(event.facts)))
        self.etas.append(event.stage.eta_seconds() if event.stage else None)

    def on_advance(self, phase: Phase) -> None:
        """Remember how far a phase is."""
        self.phases.append((phase.name, phase.done, phase.total, phase.ended))

    @property
    def names(self) -> list[str]:
        """The events' names."""
        return [name for name, _ in self.events]


def line(name: str, *, second: int = 0, **facts: object) -> str:
    """Return a line as the job logs it."""
    return json.dumps({"severity": "INFO", "time": f"2026-01-01T00:00:{second:02}.0Z", "message": name, **facts})


def status(**facts: object) -> dict[str, Any]:
    """Return a status.json."""
    return {"state": "running", "started_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", **facts}


def test_lines_of_the_log_are_events() -> None:
    """Each line is the event it was, with its facts; a failure's message stands in its facts again."""
    ear = Ear()
    replay = Replay([ear], phases=False)

    replay.line(line("stage.started", stage="fine_tuning", epochs=3))
    replay.line(line("run.failed: no disk", event="run.failed", reason="Unavailable", exit_code=20))

    assert ("stage.started", {"stage": "fine_tuning", "epochs": 3}) == ear.events[0]
    assert ("run.failed", {"reason": "Unavailable", "exit_code": 20, "message": "no disk"}) == ear.events[1]
    assert 20 == replay.exit_code


@pytest.mark.parametrize(
    "text", ["E0000 oneDNN supports DT_INT8 only on", "", "[1, 2]", '"text"', "{}", '{"message"', "7"]
)
def test_lines_of_others_are_let_through(text: str) -> None:
    """TensorFlow writes what it likes: nothing is lost, nothing breaks."""
    ear = Ear()

    Replay([ear], phases=False).line(text)

    assert [text or "-"] == ear.names


def test_eta_is_of_the_runs_own_time() -> None:
    """A log of hours is read in a moment, and the ETA is right all the same."""
    ear = Ear()
    replay = Replay([ear], phases=False)

    replay.line(line("stage.started", second=0, stage="fine_tuning", epochs=3))
    replay.line(line("epoch.finished", second=20, stage="fine_tuning", epoch=1))

    assert ear.etas[-1] == pytest.approx(40, abs=1)


def test_phases_for_bars() -> None:
    """Lines about a phase are a phase again, begun where it was first seen, and ended by its end or its process's."""
    ear = Ear()
    replay = Replay([ear], phases=True)

    replay.line(line("phase.advanced", phase="ingest", done=10, total=100, unit="images"))
    replay.line(line("phase.finished", second=1, phase="ingest", done=100, total=100, unit="images"))
    replay.line(line("phase.advanced", second=2, phase="verify", done=1, total=None, unit="images"))
    replay.end()

    assert [] == ear.names
    assert ("ingest", 10, 100, False) == ear.phases[0]
    assert ("ingest", 100, 100, True) in ear.phases
    assert ("verify", 1, None, True) == ear.phases[-1]


def test_status_is_told_once() -> None:
    """Differences from the last status.json become events: a start, stages, epochs, the end."""
    ear = Ear()
    replay = Replay([ear], phases=False)
    metrics = {"stage": "fine_tuning", "epoch": 4, "val_loss": 0.5}
    in_stage = status(stage="fine_tuning", epoch=5, epochs=9, metrics=metrics)

    replay.status(status(stage=None))
    replay.status(in_stage)
    replay.status(in_stage)
    replay.status(status(state="succeeded", message="published", metrics=metrics))

    assert ["run.started", "stage.started", "epoch.finished", "stage.finished", "run.succeeded"] == ear.names
    assert {"stage": "fine_tuning", "epochs": 9, "epochs_done": 4} == ear.events[1][1]
    assert "published" == ear.events[-1][1]["message"]


def test_status_of_another_start_begins_anew() -> None:
    """A run that was started again emits its stage again."""
    ear = Ear()
    replay = Replay([ear], phases=False)
    first = status(stage="fine_tuning", epoch=2, epochs=9)

    replay.status(first)
    replay.status(first | {"started_at": "2026-01-01T01:00:00Z", "attempt": 2})

    assert ["run.started", "stage.started", "run.started", "stage.started"] == ear.names


def test_short_epochs_between_two_looks_are_counted() -> None:
    """Where several epochs went by between two looks, the stage is as far as the last of them."""
    ear = Ear()
    replay = Replay([ear], phases=False)
    facts = {"stage": "feature_extraction", "epochs": 10}

    replay.status(status(epoch=1, **facts))
    replay.status(status(epoch=8, metrics={"stage": "feature_extraction", "epoch": 7}, **facts))

    assert replay.progress.stage
    assert 7 == replay.progress.stage.epochs_done


def test_phase_of_a_status_is_shown() -> None:
    """Bars see the phase of status.json advance, and go when it has gone."""
    ear = Ear()
    replay = Replay([ear], phases=True)

    replay.status(status(phase="ingest", done=1, total=9, unit="images"))
    replay.status(status(phase="ingest", done=5, total=9, unit="images"))
    replay.status(status(phase=None))

    assert ("ingest", 1, 9, False) == ear.phases[0]
    assert ("ingest", 5, 9, True) == ear.phases[-1]


def test_plan_of_a_log() -> None:
    """The plan of the run is replayed, so that the bars know the time to the end of the run."""
    replay = Replay([], phases=False)

    replay.line(line("training.planned", epochs={"feature_extraction": 1, "fine_tuning": 4}, epoch_seconds={}))
    replay.line(line("stage.started", second=1, stage="fine_tuning", epochs=4, epochs_done=2))

    assert replay.progress.stage
    assert (4, 5) == (replay.progress.stage.epoch_total, replay.progress.stage.epochs_total)
