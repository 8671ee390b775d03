"""The commands. What each one needs is imported when it is executed, so that help and mistakes appear at once."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from job import __version__
from job.config import reference, sources
from job.config.load import Loaded, load_settings
from job.config.settings import LogSettings, ModelSettings
from job.errors import SettingsError, StallError, exit_codes
from job.observability import log
from job.observability.progress import Event, Listener, LogListener, Progress
from job.observability.termination import write_termination_message
from job.runtime import device, signals
from job.runtime.watchdog import StallWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from job.watch import follow

_COMMANDS = {
    "run": "Train, evaluate, export and publish: the job itself.",
    "demo": "Do all of it on drawn pictures, from an emulated bucket on this machine to another.",
    "watch": "Follow a Job in a cluster, or a run by its URI, and exit as it does.",
    "summary": "Print the model's layers and which of them each stage trains. Needs no data.",
    "schema": "Print the JSON Schema of the settings file.",
}

_WITH_SETTINGS = ("run", "summary")


class Command(NamedTuple):
    """A command, ready to be executed: its settings are valid.

    Attributes:
        execute: does it, and returns the exit code; what it raises is how it ended.
        log: how it wants its log.
    """

    execute: Callable[[Progress], int]
    log: LogSettings = LogSettings()


def parse(arguments: Sequence[str]) -> Command:
    """Find out what is asked for.

    Raises:
        SettingsError: there is no such command, or its settings are wrong.
    """
    name, rest = (arguments[0], arguments[1:]) if arguments else ("help", ())
    if name == "--version":
        return Command(partial(_print, f"finetune {__version__}"))
    if name in ("help", "-h", "--help"):
        name, rest = (rest[0], ("--help",)) if rest else ("", ("--help",))
    if name and name not in _COMMANDS:
        is_flag = name.startswith("--")
        meant = f": did you mean finetune run {name} …?" if is_flag else sources.did_you_mean(name, _COMMANDS)
        raise SettingsError(f"there is no command {name!r}{meant}", remedy="finetune help lists the commands")
    if "-h" in rest or "--help" in rest:
        return Command(partial(_print, _help_of(name) if name else _help()))
    match name:
        case "run":
            loaded = load_settings(rest, required=("output.uri",))
            command = Command(partial(_run, loaded), loaded.settings.log)
        case "summary":
            settings = load_settings(rest).settings
            command = Command(partial(_summary, settings.model), settings.log)
        case "demo":
            command = Command(partial(_demo, rest))
        case "watch":
            from job.watch import follow

            command = Command(partial(_watch, follow.parse(rest)))
        case _:
            if rest:
                raise SettingsError(f"finetune schema takes no arguments, got {rest[0]!r}", remedy="leave it out")
            command = Command(partial(_print, json.dumps(reference.json_schema(), indent=2)))
    return command


def listen(settings: LogSettings) -> Progress:
    """Set up the log, and return a stream of events that leads there and to the termination message."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    console = settings.format == "console" or (settings.format == "auto" and on_terminal)
    log.configure(console=console, level=settings.level)
    interval = None if log.terminal() else 10.0  # where there are bars, they tell how far a phase is
    return Progress([_ConsoleListener(interval) if console else LogListener(interval), _LastWords()])


class _ConsoleListener(LogListener):
    """The log for a person, to whom a failure is told in plain lines."""

    def on_event(self, event: Event) -> None:
        message, remedy = event.facts.get("message"), event.facts.get("remedy")
        if event.severity not in ("error", "critical") or not message:
            super().on_event(event)
            return
        rest = {name: value for name, value in event.facts.items() if name not in ("message", "remedy")}
        log.get().error(event.name, **rest)
        for line in f"{message}\n{remedy or ''}".strip().splitlines():
            # Names in a bucket are anyone's, and must not command the terminal.
            sys.stderr.write((line if line.isprintable() else repr(line)[1:-1]) + "\n")


class _LastWords(Listener):
    """Leaves why a run ended where ``kubectl describe`` shows it.

    Args:
        path: the Pod's terminationMessagePath.
    """

    def __init__(self, path: str = "/dev/termination-log") -> None:
        self._path = path
        self._run_uri: object = None

    def on_event(self, event: Event) -> None:
        self._run_uri = event.facts.get("run_uri", self._run_uri)
        if event.name in ("run.failed", "run.stopped"):
            stage = event.stage
            write_termination_message(
                {
                    "reason": event.facts.get("reason"),
                    "stage": stage and stage.name,
                    "epoch": stage and stage.epoch,
                    "message": event.facts.get("message"),
                    "remedy": event.facts.get("remedy"),
                    "run_uri": self._run_uri,
                },
                self._path,
            )


def _run(loaded: Loaded, progress: Progress) -> int:
    from job import pipeline
    from job.observability.kube_events import EventRecorder

    if terminal := log.terminal():
        from job.observability.bars import Bars

        progress.subscribe(Bars(terminal))
    if loaded.settings.events.enabled:
        progress.subscribe(EventRecorder(loaded.settings.events, loaded.settings.run.job_uid))
    seconds = 60 * loaded.settings.device.stall_minutes
    progress.subscribe(StallWatch(seconds, save=signals.save, last_words=partial(_stalled, progress)))
    pipeline.run(loaded, progress)
    return 0


def _stalled(progress: Progress, error: StallError) -> None:
    progress.event("run.failed", severity="error", **error.facts)


def _summary(settings: ModelSettings, progress: Progress) -> int:
    device.prepare()
    from job.model.classifier import summary

    return _print(summary(settings), progress)


def _demo(arguments: Sequence[str], _: Progress) -> int:
    from job.commands import demo

    return demo.run(arguments)


def _watch(target: follow.Target, _: Progress) -> int:
    from job.watch import follow

    return follow.follow(target)


def _print(text: str, _: Progress) -> int:
    sys.stdout.write(text + "\n")
    return 0


# Help


def _help() -> str:
    commands = "\n".join(f"  {name:9}{does}" for name, does in _COMMANDS.items())
    codes = "\n".join(f"  {code:<4}{meaning}" for code, (meaning, _) in exit_codes().items())
    return f"""\
finetune {__version__}: fine-tune an ImageNet-pretrained image classifier on your own pictures, in two stages.

usage: finetune COMMAND [--config FILE] [--SETTING VALUE]...

commands:
{commands}
finetune COMMAND --help tells more of each.

examples:
  finetune run --output.uri ./trained
      the built-in demo pictures, to a folder here
  finetune run --input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained
      your own: a folder for each class under gs://my-bucket/flowers

exit codes:
{codes}
"""


def _help_of(command: str) -> str:
    if command == "watch":
        from job.watch import follow

        return follow.USAGE
    if command not in _WITH_SETTINGS:
        return f"usage: finetune {command}\n\n{_COMMANDS[command]}\n"
    width = min(100, shutil.get_terminal_size().columns)
    wrap = partial(textwrap.fill, width=width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    settings = "\n".join(f"  --{row.name} {row.default}\n{wrap(row.meaning)}" for row in reference.rows())
    return f"""\
usage: finetune {command} [--config FILE] [--SETTING VALUE]...

{_COMMANDS[command]}

Settings come from a YAML file (--config), over it from environment variables, over these from flags:
  run: {{seed: 7}}        in the file
  FINETUNE_RUN__SEED=7  in the environment
  --run.seed 7          as a flag, or --run.seed=7

settings, with their defaults:
{settings}
"""
