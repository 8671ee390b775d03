"""The interface of a command: a module with a summary, a help text and an argument parser."""

from __future__ import annotations

import shutil
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from job.config import reference
from job.config.settings import LogSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from job.observability.progress import Progress


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

    SUMMARY: str
    """One line for ``finetune help``."""

    def help_text(self) -> str:
        """Return what ``finetune COMMAND --help`` prints."""

    def parse(self, arguments: Sequence[str]) -> Command:
        """Parse the arguments that follow the command's name.

        Raises:
            SettingsError: they are invalid.
        """


def printing(text: str) -> Command:
    """Return a command that prints a text."""
    return Command(partial(_print, text))


def _print(text: str, _: Progress) -> int:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")  # the locale may be ASCII
    return 0


def settings_help(name: str, summary: str) -> str:
    """Return the help of a command that accepts the job's settings."""
    width = min(100, shutil.get_terminal_size().columns)
    wrap = partial(textwrap.fill, width=width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    settings = "\n".join(f"  --{row.name} {row.default}\n{wrap(row.meaning)}" for row in reference.rows())
    return f"""\
usage: finetune {name} [--config FILE] [--SETTING VALUE]...

{summary}

Settings come from a YAML file (--config), over it from environment variables, over these from flags:
  run: {{seed: 7}}        in the file
  FINETUNE_RUN__SEED=7  in the environment
  --run.seed 7          as a flag, or --run.seed=7

settings, with their defaults:
{settings}
"""
