"""Bars at the bottom of a terminal: one for each stage, counted in epochs, and one for each phase in progress.

The log scrolls above them, since it is written through the same console (:func:`job.observability.log.terminal`).
"""

from __future__ import annotations

import datetime as dt
import threading
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from job.observability import log
from job.observability.progress import Event, Listener, Phase, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

_MIN_SECONDS = 0.5  # seconds: bars of shorter phases would only flicker


class Bars(Listener):
    """Draws the bars four times a second until it is closed; the bars of stages stay on the screen.

    Args:
        terminal: the one that the log is written to.
    """

    def __init__(self, terminal: Console) -> None:
        self._stages: list[Stage] = []
        self._phases: list[Phase] = []
        self._lock = threading.RLock()
        self._live = Live(
            get_renderable=self._table,
            console=terminal,
            refresh_per_second=4,
            redirect_stdout=False,  # the output of a command, which may be redirected to a file
        )
        self._live.start()

    def on_event(self, event: Event) -> None:
        """Add a bar for a new stage."""
        if event.name == "stage.started" and event.stage is not None:
            with self._lock:
                self._stages.append(event.stage)

    def on_advance(self, phase: Phase) -> None:
        """Add a bar for a new phase, and remove it when the phase has ended."""
        with self._lock:
            if phase.ended:
                self._phases.remove(phase)
            elif phase not in self._phases:
                self._phases.append(phase)

    def close(self) -> None:
        """Restore the terminal."""
        self._live.stop()

    def _table(self) -> Table:
        with self._lock:
            stages, phases = list(self._stages), [phase for phase in self._phases if phase.seconds >= _MIN_SECONDS]
        table = Table.grid(padding=(0, 1))
        for shrinks in (False, True, False, False, True):  # on a narrow terminal bars and facts shrink
            table.add_column(no_wrap=not shrinks)
        for stage in stages:
            phase = next((phase for phase in phases if phase.stage is stage), None)
            eta = stage.eta_seconds(phase)
            table.add_row(
                Text(stage.name, "bold"),
                ProgressBar(stage.epochs, stage.epochs_done, width=24),
                Text(f"epoch {stage.epoch}/{stage.epochs}"),
                _duration(eta),
                _facts(stage.facts, only=("loss", "accuracy", "val_loss", "val_accuracy")),
            )
        for phase in phases:
            total = "" if phase.total is None else f"/{phase.total:,}"
            rate = "" if phase.rate is None else f" {phase.rate:,.1f}/s"
            table.add_row(
                Text(f"  {phase.name}"),
                ProgressBar(phase.total, phase.done, width=24, pulse=phase.total is None),
                Text(f"{phase.done:,}{total} {phase.unit}{rate}"),
                _duration(phase.eta_seconds),
                _facts(phase.facts),
            )
        return table


def _duration(seconds: float | None) -> Text:
    """Return the time left, as 1:02:03; empty if it is over or unknown."""
    return Text(f"{dt.timedelta(seconds=round(seconds))} left" if seconds else "", "cyan")


def _facts(facts: Mapping[str, object], only: tuple[str, ...] | None = None) -> Text:
    shown = [f"{key} {log.readable(value)}" for key, value in facts.items() if only is None or key in only]
    return Text(" ".join(shown), "dim", no_wrap=True, overflow="ellipsis")
