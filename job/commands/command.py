"""The interface of a command: a module with a summary, a help text and an argument parser."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from job.config import reference
from job.config.hints import did_you_mean
from job.config.settings import LogSettings, Settings
from job.errors import SettingsError
from job.observability import log

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

    def help_text(self, topic: str = "") -> str:
        """Return what ``finetune COMMAND --help`` prints.

        Args:
            topic: the word that follows ``--help``: a group of settings.

        Raises:
            SettingsError: there is no such topic.
        """

    def parse(self, arguments: Sequence[str]) -> Command:
        """Parse the arguments that follow the command's name.

        Raises:
            SettingsError: they are invalid.
        """


def printing(text: str) -> Command:
    """Return a command that prints a text."""
    return Command(partial(_print, text))


def _print(text: str, _: Progress) -> int:
    write(text)
    return 0


def write(text: str) -> None:
    """Write a text to the standard output, whatever characters the locale has."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


def show_bars(progress: Progress) -> None:
    """Show the progress of each phase below the log, on a terminal."""
    if terminal := log.terminal():
        from job.observability.bars import Bars

        progress.subscribe(Bars(terminal))


def check_machine(settings: Settings) -> None:
    """Check what a command needs of this machine, before it writes anything.

    Raises:
        SettingsError: TensorFlow or the weights file is missing.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise SettingsError(
            "TensorFlow is not installed",
            remedy="in a checkout: pip install '.[cpu]' (or '.[gpu]'); or use the container image, which contains it",
        )
    weights = settings.model.weights
    if weights.startswith("/") and not Path(weights).is_file():
        raise SettingsError(f"model.weights = {weights!r}: there is no such file", remedy="check the path")


def settings_help(name: str, summary: str, topic: str = "") -> str:
    """Return the help of a command that accepts the job's settings.

    Args:
        name: of the command.
        summary: of the command.
        topic: a group of settings, whose part of the help is returned; empty: all of it.

    Raises:
        SettingsError: there is no such group.
    """
    groups = reference.groups()
    if topic:
        group = topic.lstrip("-").partition(".")[0]
        if group not in groups:
            raise SettingsError(
                f"there is no group of settings {topic!r}{did_you_mean(group, groups)}",
                remedy=f"finetune {name} --help GROUP explains one of: {', '.join(groups)}",
            )
        return _group_help(group, groups[group])
    settings = "\n".join(_group_help(group, documented) for group, documented in groups.items())
    return f"""\
usage: finetune {name} [--config FILE]... [--SETTING VALUE]...
   or: finetune {name} --help GROUP      the settings of one group: {next(iter(groups))}, …

{summary}

Settings come from YAML files (--config, later ones override earlier ones), over them from environment variables, over
these from flags:
  run: {{seed: 7}}        in the file
  FINETUNE_RUN__SEED=7  in the environment
  --run.seed 7          as a flag, or --run.seed=7

{settings}"""


def _group_help(name: str, group: reference.Group) -> str:
    width = min(100, shutil.get_terminal_size().columns)
    wrap = partial(textwrap.fill, width=width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    settings = "\n".join(f"  --{row.name} {row.default}\n{wrap(row.meaning)}" for row in group.rows)
    return f"{name}: {group.meaning}\n{settings}\n"
