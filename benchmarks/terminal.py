"""A terminal for programs to write to: runs one on a pseudo-terminal, and draws what it writes.

screen = Screen(columns=80)
for seconds, data in run(["finetune", "demo"], columns=80):
    screen.write(data)
print(screen.text())
"""

from __future__ import annotations

import codecs
import fcntl
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

ROWS = 50
SETTLED = 0.02  # seconds without output after which a frame is complete

_PIECE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]")


class Screen:
    """What a terminal shows, the lines that were scrolled away included.

    Attributes:
        wraps: number of lines that did not fit, and continued on the next row.
    """

    def __init__(self, columns: int) -> None:
        self.wraps = 0
        self._columns = columns
        self._cells: list[list[tuple[str, str]]] = [[]]  # character, style
        self._row = self._column = 0
        self._style = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""

    def write(self, data: bytes) -> None:
        """Draw output.

        Raises:
            ValueError: it has a control sequence that is not supported here.
        """
        text = self._unfinished + self._decoder.decode(data)
        end = text.rfind("\x1b")
        is_cut = end >= 0 and not re.match(r"\x1b\[[?0-9;]*[A-Za-z]", text[end:])
        text, self._unfinished = (text[:end], text[end:]) if is_cut else (text, "")
        for piece in _PIECE.findall(text):
            self._draw(piece)

    def text(self) -> list[str]:
        """Return the lines, without styles and trailing spaces."""
        return ["".join(character for character, _ in line).rstrip() for line in self._cells]

    def ansi(self) -> list[str]:
        """Return the lines with their styles."""
        runs = (
            [(style, list(cells)) for style, cells in itertools.groupby(line, lambda cell: cell[1])]
            for line in self._cells
        )
        return ["".join(f"{style}{''.join(c for c, _ in cells)}\x1b[0m" for style, cells in line) for line in runs]

    def _draw(self, piece: str) -> None:
        if piece == "\r":
            self._column = 0
        elif piece == "\n":
            self._row += 1
        elif not piece.startswith("\x1b"):
            self._put(piece)
        elif piece.endswith("A"):  # up
            self._row = max(0, self._row - int(piece[2:-1] or 1))
        elif piece == "\x1b[2K":  # erase the line
            self._extend()
            self._cells[self._row] = []
        elif piece.endswith("m"):
            self._style = "" if piece in ("\x1b[0m", "\x1b[m") else self._style + piece
        elif piece not in ("\x1b[?25l", "\x1b[?25h"):  # the cursor is hidden or shown
            raise ValueError(f"{piece!r} is not supported")

    def _put(self, character: str) -> None:
        if not character.isprintable():
            raise ValueError(f"{character!r} is not supported")
        if self._column == self._columns:
            self._row, self._column = self._row + 1, 0
            self.wraps += 1
        self._extend()
        line = self._cells[self._row]
        line.extend([(" ", "")] * (self._column + 1 - len(line)))
        line[self._column] = (character, self._style)
        self._column += 1

    def _extend(self) -> None:
        self._cells.extend([] for _ in range(self._row + 1 - len(self._cells)))


def run(
    command: Sequence[str | Path],
    *,
    columns: int,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[tuple[float, bytes]]:
    """Run a program on a terminal, and yield what it writes, frame by frame: seconds since its start, and the bytes.

    Args:
        command: program and arguments; no shell.
        columns: width of the terminal.
        environment: added to this process's own.
        folder: the working directory.

    Raises:
        subprocess.CalledProcessError: the program failed.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    variables = {**inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(environment or {})}
    started = time.monotonic()
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=variables, cwd=folder)
    os.close(slave)
    try:
        while data := _read(master):
            seconds = time.monotonic() - started
            while select.select([master], [], [], SETTLED)[0] and (more := _read(master)):
                data += more
            yield seconds, data
    finally:
        os.close(master)  # a program that is not read to its end is hung up
        code = child.wait()
    if code:
        raise subprocess.CalledProcessError(code, command)


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # the program has ended
        return b""
