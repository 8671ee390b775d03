"""The command line: selects the command, configures its log and prints the help.

Heavy imports are deferred until a command is executed, so that help and usage errors appear instantly.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from job import __version__
from job.commands import (
    demo,
    doctor,
    evaluate,
    lr_find,
    plan,
    predict,
    report,
    run,
    runs,
    schema,
    summary,
    validate,
    verify,
    watch,
)
from job.commands.command import Command, CommandModule, printing
from job.commands.manual import all_codes, help_text
from job.config import environment
from job.config.hints import similar
from job.errors import SettingsError, UsageError
from job.observability import log
from job.observability.console import ConsoleListener
from job.observability.progress import Event, Listener, LogListener, Progress
from job.observability.termination import TerminationMessage, write_termination_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import LogSettings

COMMANDS: dict[str, CommandModule] = {
    "run": run,
    "demo": demo,
    "validate": validate,
    "plan": plan,
    "lr-find": lr_find,
    "doctor": doctor,
    "watch": watch,
    "report": report,
    "predict": predict,
    "evaluate": evaluate,
    "verify": verify,
    "runs": runs,
    "summary": summary,
    "schema": schema,
}
GROUPS: dict[str, dict[str, CommandModule]] = {"runs": runs.COMMANDS}
"""First word -> second word -> module, of commands that are called by two words."""

ALIASES: Final = MappingProxyType(
    {
        **dict.fromkeys(("train", "training", "fit", "start", "job", "finetune", "fine-tune", "submit"), "run"),
        **dict.fromkeys(("example", "quickstart", "try"), "demo"),
        **dict.fromkeys(("dry-run", "preview"), "plan"),
        **dict.fromkeys(("lr_find", "lr-finder", "lr-range-test", "find-lr"), "lr-find"),
        **dict.fromkeys(("diagnose", "preflight", "selftest"), "doctor"),
        **dict.fromkeys(("follow", "status", "logs", "tail", "attach"), "watch"),
        **dict.fromkeys(("html", "page", "dashboard"), "report"),
        **dict.fromkeys(("infer", "inference", "classify", "score", "label"), "predict"),
        **dict.fromkeys(("eval", "measure", "test", "metrics"), "evaluate"),
        **dict.fromkeys(("checksum", "checksums", "fsck"), "verify"),
        **dict.fromkeys(("ls", "list", "history"), "runs list"),
        **dict.fromkeys(("diff", "compare"), "runs compare"),
        **dict.fromkeys(("promote", "rollback", "release"), "runs promote"),
        **dict.fromkeys(("prune", "gc", "delete", "cleanup"), "runs prune"),
        **dict.fromkeys(("model", "layers", "describe"), "summary"),
        **dict.fromkeys(("settings", "config", "json-schema"), "schema"),
        "version": "--version",
    }
)
"""What a command is called in other tools -> what to use here."""


def parse(arguments: Sequence[str]) -> Command:
    """Return the command that the arguments select.

    Raises:
        UsageError: unknown command or invalid arguments.
        SettingsError: the settings of a run are invalid.
    """
    name, rest = (arguments[0], arguments[1:]) if arguments else ("help", ())
    if name in ("--version", "-V"):
        return printing(f"finetune {__version__}")
    if name in ("help", "-h", "--help"):
        if not rest:
            return printing(_help())
        name, rest = rest[0], ("--help", *rest[1:])
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}{_hint(name)}", remedy="finetune help lists the commands")
    name, command, rest = _select(name, rest)
    for position, argument in enumerate(rest):
        if argument in ("-h", "--help"):
            return printing(help_text(name, command.MANUAL, *rest[position + 1 : position + 2]))
    try:
        return command.parse(rest)
    except SettingsError as error:
        if command is run:  # its log and its termination message are read by other programs
            raise
        raise UsageError(error.message, remedy=error.remedy) from None


def all_commands() -> dict[str, CommandModule]:
    """Return the words of each command -> its module, those of a group after the group itself."""
    found: dict[str, CommandModule] = {}
    for name, command in COMMANDS.items():
        found[name] = command
        found |= {f"{name} {word}": member for word, member in GROUPS.get(name, {}).items()}
    return found


def _select(name: str, rest: Sequence[str]) -> tuple[str, CommandModule, Sequence[str]]:
    """Return the words of a command, its module, and the arguments that follow them.

    The second word of a group may stand behind ``--help``, which `parse` puts first.
    """
    words = [argument for argument in rest[:2] if argument not in ("-h", "--help")]
    if words and (member := GROUPS.get(name, {}).get(words[0])):
        position = rest.index(words[0])
        return f"{name} {words[0]}", member, (*rest[:position], *rest[position + 1 :])
    return name, COMMANDS[name], rest


def report_usage(error: UsageError) -> None:
    """Write a mistake in the command line to stderr, as text in every format of the log, and why to Kubernetes."""
    write_termination_message(error.facts)
    for line in f"finetune: {error.message}\n{error.remedy}".splitlines() if sys.stderr else ():
        # Arguments may come from a script: escape control sequences.
        sys.stderr.write((line if line.isprintable() else repr(line)[1:-1]) + "\n")


def _hint(name: str) -> str:
    """Return a suggestion for a word that is not a command."""
    if name.startswith("-"):
        return f": did you mean finetune run {name} …?"
    if name.startswith("gs://") or Path(name).exists():
        return f": did you mean finetune run --input.uri {name} …?"
    nearest = [name] if name in ALIASES else similar(name, {*COMMANDS, *ALIASES})
    meant = sorted({f"finetune {ALIASES.get(word, word)}" for word in nearest})
    return f": did you mean {' or '.join(meant)}?" if meant else ""


def listen(settings: LogSettings) -> Progress:
    """Configure the log, and return an event stream that writes to it and to the termination message."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    console = settings.format == "console" or (settings.format == "auto" and on_terminal)
    log.configure(console=console, level=settings.level)
    interval = None if log.terminal() else 10.0  # on a terminal, the bars show the progress of a phase
    has_parent = environment.get("FINETUNE_PARENT") is not None  # which writes the closing block itself
    listener = ConsoleListener(interval, with_block=not has_parent) if console else LogListener(interval)
    return Progress([listener, _LastLine(), TerminationMessage()])


class _LastLine(Listener):
    """Ends the log with the failure. What fails after it, such as writing status.json, would hide why the run ended."""

    def on_event(self, event: Event) -> None:
        if event.name in ("run.failed", "run.stopped"):
            log.end()


def _help() -> str:
    commands = "\n".join(f"  {name:9}{command.MANUAL.summary}" for name, command in COMMANDS.items())
    codes = "\n".join(f"  {code:<4}{meaning}" for code, meaning in all_codes().items())
    return f"""\
finetune {__version__}: fine-tune an ImageNet-pretrained image classifier on your own pictures, in two stages.

usage: finetune COMMAND [--config FILE]... [--SETTING VALUE]...
   or: finetune COMMAND --help           what it takes, where its result goes, its flags and exit codes
   or: finetune --version

commands:
{commands}

examples:
  finetune run --output.uri ./trained
      the built-in demo pictures, to a folder here
  finetune run --input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained
      your own: a folder for each class under gs://my-bucket/flowers

exit codes:
{codes}"""
