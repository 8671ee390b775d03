"""The command line: selects the command, configures its log and prints the help.

Heavy imports are deferred until a command is executed, so that help and usage errors appear instantly.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from job import __version__
from job.commands import demo, run, schema, summary, validate, watch
from job.commands.command import Command, CommandModule, printing
from job.config.hints import did_you_mean
from job.errors import SettingsError, exit_codes
from job.observability import log
from job.observability.console import ConsoleListener
from job.observability.progress import Event, Listener, LogListener, Progress
from job.observability.termination import TerminationMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import LogSettings

COMMANDS: dict[str, CommandModule] = {
    "run": run,
    "demo": demo,
    "validate": validate,
    "watch": watch,
    "summary": summary,
    "schema": schema,
}


def parse(arguments: Sequence[str]) -> Command:
    """Return the command that the arguments select.

    Raises:
        SettingsError: unknown command or invalid arguments.
    """
    name, rest = (arguments[0], arguments[1:]) if arguments else ("help", ())
    if name in ("--version", "-V"):
        return printing(f"finetune {__version__}")
    if name in ("help", "-h", "--help"):
        if not rest:
            return printing(_help())
        name, rest = rest[0], ("--help", *rest[1:])
    if name not in COMMANDS:
        raise SettingsError(f"there is no command {name!r}{_hint(name)}", remedy="finetune help lists the commands")
    command = COMMANDS[name]
    for position, argument in enumerate(rest):
        if argument in ("-h", "--help"):
            return printing(command.help_text(*rest[position + 1 : position + 2]))
    return command.parse(rest)


def _hint(name: str) -> str:
    """Return a suggestion for a word that is not a command."""
    if name.startswith("-"):
        return f": did you mean finetune run {name} …?"
    if name in ("train", "fit", "start", "job", "finetune"):
        return ": did you mean finetune run?"
    if name.startswith("gs://") or Path(name).exists():
        return f": did you mean finetune run --input.uri {name} …?"
    return did_you_mean(name, COMMANDS)


def listen(settings: LogSettings) -> Progress:
    """Configure the log, and return an event stream that writes to it and to the termination message."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    console = settings.format == "console" or (settings.format == "auto" and on_terminal)
    log.configure(console=console, level=settings.level)
    interval = None if log.terminal() else 10.0  # on a terminal, the bars show the progress of a phase
    listener = ConsoleListener(interval) if console else LogListener(interval)
    return Progress([listener, _LastLine(), TerminationMessage()])


class _LastLine(Listener):
    """Ends the log with the failure. What fails after it, such as writing status.json, would hide why the run ended."""

    def on_event(self, event: Event) -> None:
        if event.name in ("run.failed", "run.stopped"):
            log.end()


def _help() -> str:
    commands = "\n".join(f"  {name:9}{command.SUMMARY}" for name, command in COMMANDS.items())
    codes = "\n".join(f"  {code:<4}{meaning}" for code, (meaning, _) in exit_codes().items())
    return f"""\
finetune {__version__}: fine-tune an ImageNet-pretrained image classifier on your own pictures, in two stages.

usage: finetune COMMAND [--config FILE] [--SETTING VALUE]...

commands:
{commands}
finetune COMMAND --help explains each of them.

examples:
  finetune run --output.uri ./trained
      the built-in demo pictures, to a folder here
  finetune run --input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained
      your own: a folder for each class under gs://my-bucket/flowers

exit codes:
{codes}
"""
