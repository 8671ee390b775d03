"""The interface of a command: a module with a manual and an argument parser."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from job.config.settings import LogSettings, Settings
from job.errors import AccessError, SettingsError
from job.export import formats
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from job.commands.manual import Manual
    from job.observability.progress import Listener, Progress


class Command(NamedTuple):
    """A command with valid arguments, ready to be executed.

    Attributes:
        execute: runs the command and returns the exit code, or raises the error with which it failed.
        log: the settings of its log.
    """

    execute: Callable[[Progress], int]
    log: LogSettings = LogSettings()


class CommandModule(Protocol):
    """The module of one command."""

    MANUAL: Manual

    def parse(self, arguments: Sequence[str]) -> Command:
        """Parse the arguments that follow the command's name.

        Raises:
            SettingsError: they are invalid.
        """


def show_bars(progress: Progress) -> None:
    """Show what is in progress as bars below the log, on a terminal, until the end of the stream."""
    if bars := _bars():
        progress.subscribe(bars)


@contextlib.contextmanager
def showing(progress: Progress) -> Iterator[None]:
    """Show what is in progress in a block, as `show_bars` does; afterwards the terminal is free for other output."""
    with contextlib.ExitStack() as stack:
        if bars := _bars():
            stack.enter_context(progress.listening(bars))
        yield


def _bars() -> Listener | None:
    if (terminal := log.terminal()) is None:
        return None
    from job.observability.bars import Bars

    return Bars(terminal)


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Create a folder of the flag --out, and write into it in a block.

    Raises:
        AccessError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise AccessError(
            f"{str(folder)!r} cannot be written: {error.strerror or error}", remedy="choose another folder by --out"
        ) from error


def printing(text: str) -> Command:
    """Return a command that prints a text."""
    return Command(partial(_print, text))


def _print(text: str, _: Progress) -> int:
    write(text)
    return 0


def write(text: str) -> None:
    """Write a text to the standard output, under any locale."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def write_line(text: str) -> None:
    """Print a line. Names of objects are untrusted: control characters are escaped, and what the locale lacks."""
    line = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def check_machine(settings: Settings) -> None:
    """Check what a command needs of this machine, before it writes anything.

    Raises:
        SettingsError: TensorFlow, a package of `export.formats` or the weights file is missing.
    """
    check_tensorflow()
    formats.check_installed(settings.export.formats)
    check_weights(settings)


def check_weights(settings: Settings) -> None:
    """Check that the weights file exists, if the settings name one.

    Raises:
        SettingsError: it does not.
    """
    weights = settings.model.weights
    if weights.startswith("/") and not settings.model.is_warm_start and not Path(weights).is_file():
        raise SettingsError(f"model.weights = {weights!r}: there is no such file", remedy="check the path")


def check_tensorflow() -> None:
    """Check that TensorFlow is installed, without importing it.

    Raises:
        SettingsError: it is not.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise SettingsError(
            "TensorFlow is not installed",
            remedy="in a checkout: pip install '.[cpu]' (or '.[gpu]'); or use the container image, which contains it",
        )
