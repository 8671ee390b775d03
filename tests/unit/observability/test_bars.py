"""The bars on a real terminal: a pseudo-terminal whose screen the test draws."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from job.observability.bars import Bars
from job.observability.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
WIDTH = 100

SCRIPT = r"""
import itertools, sys, threading
from job.observability import log
from job.observability.bars import Bars
from job.observability.progress import LogListener, Progress

log.configure(console=True)
terminal = log.terminal()
print(terminal is not None)
ticks = itertools.count()
frames = threading.Semaphore(0)
class Watched(Bars):
    def _table(self):
        frames.release()
        return super()._table()
def wait_for_a_frame():
    while frames.acquire(blocking=False):
        pass
    for _ in range(2 * (terminal is not None)):  # the first is on the screen when the second one begins
        frames.acquire()
progress = Progress([LogListener(None)], clock=lambda: float(next(ticks)))
if terminal:
    progress.subscribe(Watched(terminal))
progress.event("training.planned", epochs={"feature_extraction": 1, "fine_tuning": 2})
progress.event("stage.started", stage="fine_tuning", epochs=2)
for epoch in (1, 2):
    with progress.phase(f"fine_tuning {epoch}/2", 40, "images") as phase:
        phase.advance(10, loss=0.25)
        wait_for_a_frame()
        def talk(thread):
            for i in range(5):
                log.get().info("said", thread=thread, i=i, text="x" * 150)
        threads = [threading.Thread(target=talk, args=(f"{epoch}.{n}",)) for n in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print("someone else's line", file=sys.stderr)
    progress.event("epoch.finished", stage="fine_tuning", epoch=epoch, val_accuracy=0.875)
progress.event("stage.finished", stage="fine_tuning")
with progress.phase("export", None, ""):
    wait_for_a_frame()
progress.close()
log.get().info("after")
"""


def screen(data: str) -> list[str]:
    """Return the lines that a terminal of WIDTH columns shows after ``data``, those scrolled away included."""
    lines: list[list[str]] = [[]]
    row = column = 0
    for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]", data):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
        elif piece.isprintable():
            if column == WIDTH:
                row, column = row + 1, 0
            lines.extend([] for _ in range(row + 1 - len(lines)))
            lines[row] += " " * (column + 1 - len(lines[row]))
            lines[row][column] = piece
            column += 1
        elif piece.endswith("A"):  # up
            row -= int(piece[2:-1] or 1)
        elif piece == "\x1b[2K":  # erase the line
            lines.extend([] for _ in range(row + 1 - len(lines)))
            lines[row] = []
        else:  # a style, or the cursor hidden or shown
            assert piece[-1] in "mhl"
    return ["".join(line).rstrip() for line in lines]


def run_on_a_terminal(term: str) -> tuple[str, str]:
    """Run the script with stderr on a terminal; return what it sent there, and its stdout."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "40", "TERM": term}
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, stderr=slave, stdout=subprocess.PIPE, text=True
    )
    os.close(slave)
    received = b""
    while True:
        try:
            received += os.read(master, 65536)
        except OSError:  # the other end is closed
            break
    stdout, _ = child.communicate(timeout=60)
    os.close(master)
    assert 0 == child.returncode
    return received.decode(), stdout


@pytest.fixture(scope="module")
def terminal() -> tuple[str, str]:
    """What the script sent to a terminal, and its stdout."""
    return run_on_a_terminal("xterm-256color")


def test_bars_are_drawn_while_it_runs(terminal: tuple[str, str]) -> None:
    """Stage and phase have a line each with bar, counts, rate, time left and facts; the cursor comes back."""
    sent, stdout = terminal
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", sent)
    assert re.search(r"fine_tuning +[━╺╸]+ epoch 1/2 ", text)
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] 2/2 [━╺╸]+ 10/40 images [0-9.]+/s [0-9:]+ left +loss 0.25", text)
    assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] exporting the model +[0-9]:[0-9]{2} *\r", text)
    assert "True\n" == stdout
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")


def test_the_log_stands_above_the_bars_ungarbled(terminal: tuple[str, str]) -> None:
    """In the end each line of the log is on the screen once and whole, and of the bars only the stage's is left."""
    shown = screen(terminal[0])
    joined = "\n".join(shown)
    for thread in ("1.0", "1.1", "2.0", "2.1"):
        for i in range(5):
            assert 1 == len(re.findall(rf"thread={thread} i={i}\n {{9}}text={'x' * 86}\n{'x' * 64}\n", joined))
    assert 2 == shown.count("someone else's line")
    assert 1 == sum("━" in line for line in shown)
    bar = next(line for line in shown if "━" in line)
    assert re.fullmatch(r"fine_tuning ━{24} epoch 2/2 +val_acc 0.875", bar)
    after = shown[shown.index(bar) + 1 :]
    assert 1 == len([line for line in after if line])
    assert "after" in after[0]


def drawn(columns: int, listen: Callable[[Progress], object]) -> list[str]:
    """Return the lines of the bars on a terminal of that width, after some events."""
    now = itertools.count(step=10)
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=columns)
    bars = Bars(terminal)
    listen(Progress([bars], clock=lambda: float(next(now))))
    bars.close()
    with terminal.capture() as captured:
        terminal.print(bars._table())
    return captured.get().splitlines()


EPOCH = {"loss": 0.2381, "accuracy": 0.96, "val_loss": 0.2015, "val_accuracy": 0.9671}


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (60, ""),
        (80, "val_acc 0.967"),
        (100, "val_acc 0.967 acc 0.960 val_loss 0.202"),
        (160, "val_acc 0.967 acc 0.960 val_loss 0.202 loss 0.238"),
    ],
)
def test_narrow_terminal(columns: int, shown: str) -> None:
    """Bars shrink and facts are left out, the validation accuracy last; no line is wider than the terminal."""

    def listen(progress: Progress) -> None:
        plan = {"feature_extraction": 10, "fine_tuning": 10}
        progress.event("training.planned", epochs=plan, epoch_seconds={"fine_tuning": 400.0})
        progress.event("stage.started", stage="feature_extraction", epochs=10)
        progress.event("epoch.finished", stage="feature_extraction", epoch=1, **EPOCH)
        stack.enter_context(progress.phase("feature_extraction 2/10 validation", 123456, "images")).advance(12345)

    with contextlib.ExitStack() as stack:
        stage, phase = drawn(columns, listen)

    assert columns >= max(len(stage), len(phase))
    assert re.match(r"feature_extraction [━╸╺ ]+ epoch 2/10", stage)
    assert stage.rstrip().endswith(shown)
    if columns >= 80:
        assert re.search(r"[0-9:]+ left, run 1:[0-9]{2}:[0-9]{2} val_acc", stage)
        assert re.match(r". 2/10 validation [━╸╺ ]+ 12,345/123,456 images [0-9,.]+/s [0-9:]+ left", phase)


def test_bytes_are_megabytes() -> None:
    """A download is counted in MB."""

    def listen(progress: Progress) -> None:
        stack.enter_context(progress.phase("download weights", 9_406_464, "bytes")).advance(3_100_000)

    with contextlib.ExitStack() as stack:
        [line] = drawn(80, listen)

    assert re.search(r"downloading weights [━╸╺ ]+ 3\.1/9\.4 MB 0\.\d/s \d:\d\d left", line)


def test_a_terminal_that_cannot_move_its_cursor_has_no_bars() -> None:
    """On a dumb terminal there are the lines of the log and nothing else."""
    sent, stdout = run_on_a_terminal("dumb")
    assert "━" not in sent
    assert "\x1b" not in sent
    assert "epoch.finished" in sent
    assert "False\n" == stdout
