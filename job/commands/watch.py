"""``finetune watch``: follow a Job in a cluster, or a run by its URI or folder, and exit with its exit code."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from job.commands.command import Command
from job.errors import SettingsError
from job.watch import follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.observability.progress import Progress

SUMMARY = "Follow a Job in a cluster, or a run by its URI or folder, and exit as it does."

_HELP = """\
usage: finetune watch JOB [--namespace NAME] [--context NAME]
       finetune watch gs://BUCKET/PREFIX/runs/ID
       finetune watch FOLDER

Follow a Job of the cluster that the kubeconfig names, or a run by its URI, and exit with its exit code; 130 after
Ctrl-C, which has no effect on the run. FOLDER is a run on this machine, or its output: then the run in it that reported
last. job/NAME is always a Job.
"""


def help_text(_: str = "") -> str:
    """Return what ``finetune watch --help`` prints."""
    return _HELP


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(
            message, remedy="usage: finetune watch JOB [--namespace NAME] [--context NAME], or a run's URI"
        )


def read_target(arguments: Sequence[str]) -> follow.Target:
    """Parse the target to follow.

    Raises:
        SettingsError: the target is missing or not a location, or a flag is unknown.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("name", metavar="JOB")
    parser.add_argument("--namespace", "-n")
    parser.add_argument("--context")
    parsed = parser.parse_args(arguments)
    name = parsed.name.removeprefix("job/").removeprefix("job.batch/")
    try:
        is_run = name == parsed.name and (follow.find_run(name) is not None or "/" in name)
    except ValueError as error:
        parser.error(str(error))
    return follow.Target(name, parsed.namespace, parsed.context, is_run)


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: see `read_target`.
    """
    return Command(partial(_execute, read_target(arguments)))


def _execute(target: follow.Target, _: Progress) -> int:
    return follow.follow(target)
