"""Bars at the bottom of a terminal: one for each stage, counted in epochs, and one for each phase in progress.

The log scrolls above them, since it is written through the same console (:func:`job.observability.log.terminal`).
"""

from __future__ import annotations

import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from job.observability import log
from job.observability.closing import duration
from job.observability.progress import Event, Listener, Phase, Stage

if TYPE_CHECKING:
    from rich.console import Console

_MIN_SECONDS = 0.25  # seconds: bars of shorter phases would only flicker
_BAR = range(6, 25)  # columns of a bar
_SPINNER, _ASCII_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_REFRESH = 4  # per second

_METRICS: Final = MappingProxyType(
    {"val_accuracy": "val_acc", "accuracy": "acc", "val_loss": "val_loss", "loss": "loss"}
)
"""Fact of an epoch -> its name here; the first ones are the last to be left out on a narrow terminal."""

_NAMES: Final = MappingProxyType(
    {
        "draw": "drawing pictures",
        "copy": "copying",
        "list": "listing the input",
        "import": "importing TensorFlow",
        "model": "building the model",
        "download weights": "downloading weights",
        "ingest": "reading images",
        "prepare": "preparing the stage",
        "label errors": "looking for label errors",
        "export": "exporting the model",
        "verify": "verifying the export",
        "compare": "comparing with the latest run",
        "convert tflite": "converting to TFLite",
        "convert tflite_int8": "converting to TFLite int8",
        "convert onnx": "converting to ONNX",
        "upload": "writing the model",
        "report": "writing the report",
        "publish": "publishing the run",
    }
)
"""Phase -> its name here, where that is another one."""


class _Row(NamedTuple):
    """A line: name, bar, counts, time, and facts of which those that fit are shown."""

    name: Text
    bar: ProgressBar | None
    counts: str
    time: str
    facts: list[str]


class Bars(Listener):
    """Draws the bars four times a second until it is closed; the bars of stages stay on the screen.

    Between two phases a line shows that the run is at work.

    Args:
        terminal: the one that the log is written to.
    """

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._stages: list[Stage] = []
        self._phases: list[Phase] = []
        self._idle_since = time.monotonic()
        self._closed = False
        self._lock = threading.RLock()
        self._live = Live(
            get_renderable=self._table,
            console=terminal,
            refresh_per_second=_REFRESH,
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
                self._idle_since = time.monotonic()
            elif phase not in self._phases:
                self._phases.append(phase)

    def close(self) -> None:
        """Restore the terminal."""
        self._closed = True
        self._live.stop()

    def _table(self) -> Group:
        with self._lock:
            stages, phases = list(self._stages), [phase for phase in self._phases if phase.seconds >= _MIN_SECONDS]
            idle = 0.0 if self._phases or self._closed else time.monotonic() - self._idle_since
        stage_rows = [
            _stage_row(stage, next((phase for phase in phases if phase.stage is stage), None)) for stage in stages
        ]
        spinner = _ASCII_SPINNER if self._terminal.options.ascii_only else _SPINNER
        phase_rows = [_phase_row(phase, spinner) for phase in phases]
        if idle >= _MIN_SECONDS:  # between two phases
            phase_rows = [_Row(_name("working", idle, spinner), None, "", duration(idle), [])]
        return Group(*(_grid(rows, self._terminal.width) for rows in (stage_rows, phase_rows) if rows))


def _stage_row(stage: Stage, phase: Phase | None) -> _Row:
    eta, run_eta = stage.eta_seconds(phase), stage.run_eta_seconds(phase)
    time = f"{duration(eta)} left" if eta else ""
    if eta and run_eta and run_eta > eta:
        time += f", run {duration(run_eta)}"
    facts = [
        f"{name} {value:.3f}" for fact, name in _METRICS.items() if isinstance(value := stage.facts.get(fact), float)
    ]
    bar = ProgressBar(stage.epochs, stage.epochs_done)
    return _Row(Text(stage.name, "bold"), bar, f"epoch {stage.epoch}/{stage.epochs}", time, facts)


def _phase_row(phase: Phase, spinner: str) -> _Row:
    """Return the row of a phase. Its spinner turns, and without an ETA its time counts up: it moves while it waits."""
    name = phase.name.removeprefix(phase.stage.name if phase.stage else "").strip()
    eta = phase.eta_seconds
    return _Row(
        _name(_NAMES.get(name, name), phase.seconds, spinner),
        ProgressBar(phase.total, phase.done) if phase.total is not None else None,
        _counts(phase),
        f"{duration(eta)} left" if eta else duration(phase.seconds),
        [f"{key} {log.readable(value)}" for key, value in phase.facts.items()],
    )


def _name(name: str, seconds: float, spinner: str) -> Text:
    """Return a name after the spinner as it stands after some seconds."""
    return Text(f"{spinner[int(seconds * _REFRESH) % len(spinner)]} {name}")


def _counts(phase: Phase) -> str:
    """Return what is done: "120/600 images 35.1/s", "3.1/9.4 MB 2.2/s"; empty if it is not counted."""
    if phase.total is None and not phase.done:
        return ""
    scale, unit, form = (1e-6, "MB", ",.1f") if phase.unit == "bytes" else (1, phase.unit, ",")
    total = "" if phase.total is None else f"/{phase.total * scale:{form}}"
    rate = "" if phase.rate is None else f" {phase.rate * scale:,.1f}/s"
    return f"{phase.done * scale:{form}}{total} {unit}{rate}"


def _grid(rows: list[_Row], width: int) -> Table:
    """Return the rows as a table of at most ``width`` columns: bars shrink first, then the last facts are left out."""
    has_bar = any(row.bar for row in rows)
    columns = [[getattr(row, name) for row in rows] for name in ("name", "counts", "time")]
    free = width - sum(max(map(len, texts)) for texts in columns) - 4  # a column between two
    wanted = max(len(" ".join(row.facts)) for row in rows)
    bar = min(max(free - wanted, _BAR[0]), _BAR[-1]) if has_bar else 0
    table = Table.grid(padding=(0, 1))
    for _ in range(5):
        table.add_column(no_wrap=True, overflow="crop")
    for row in rows:
        facts = row.facts
        while facts and len(" ".join(facts)) > free - bar:
            facts = facts[:-1]
        if row.bar:
            row.bar.width = bar
        table.add_row(row.name, row.bar or "", Text(row.counts), Text(row.time, "cyan"), Text(" ".join(facts), "dim"))
    return table
