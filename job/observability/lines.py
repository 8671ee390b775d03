"""How lines look on a terminal: broken between words, and repeated warnings counted."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import structlog
from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

INDENT = len("00:00:00 ")
"""Columns before the second and later lines of an event."""

REPEATS = 3
"""Number of warnings of one name in a row that are shown."""


def wrapped(line: Text, width: int, indent: int = INDENT) -> Text:
    """Return a line that is broken between words, so that no part is wider than ``width``, except a longer word.

    Args:
        line: one line; a text of several lines is returned unchanged.
        width: of the terminal, in columns.
        indent: columns before each later part.
    """
    if "\n" in line.plain:
        return line
    starts: list[int] = []
    column = 0
    for word in re.finditer(r"\s*\S+", line.plain):
        leading = len(word[0]) - len(word[0].lstrip())
        if column + cell_len(word[0]) > width and column > indent:
            starts.append(word.start() + leading)
            column = indent + cell_len(word[0].lstrip())
        else:
            column += cell_len(word[0])
    parts = line.divide(starts)
    for part in parts[:-1]:
        part.rstrip()
    return Text(f"\n{' ' * indent}").join(parts)


class RepeatLimit:
    """A processor of structlog that drops warnings of one name in a row, and logs their number after the last one."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._count = 0
        self._lock = threading.RLock()  # a signal handler may log while its thread holds the lock

    def __call__(self, _: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """Return the event.

        Raises:
            structlog.DropEvent: enough warnings of its name have been shown.
        """
        name = str(event.get("event")) if method == "warning" else None
        with self._lock:
            if name is not None and name == self._name:
                self._count += 1
                if self._count > REPEATS:
                    raise structlog.DropEvent
                return event
            previous, dropped = self._name, self._count - REPEATS
            self._name, self._count = None, 0
            if dropped > 0:
                structlog.get_logger().warning(previous, more=dropped)
            self._name, self._count = name, 1
        return event
