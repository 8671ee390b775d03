"""``finetune watch``: follow a Job in a cluster, or a run by its URI or folder, and exit with its exit code."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from job.commands.command import Command
from job.commands.manual import Manual
from job.config.hints import did_you_mean
from job.errors import AccessError, DataError, SettingsError, UnavailableError
from job.watch import follow
from job.watch.newest_run import find_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.observability.progress import Progress

MANUAL = Manual(
    summary="Follow a Job in a cluster, or a run by its URI or folder, and exit with its code.",
    usage=(
        "JOB [--namespace NAME] [--context NAME]",
        "gs://BUCKET/PREFIX[/runs/ID]",
        "FOLDER",
    ),
    description=f"""\
JOB is a Job of the cluster that the kubeconfig names; job/NAME is always a Job. If its Pods are gone, its end is read
from its record in the output. A URI, or a FOLDER of this machine, is a run or an output: then the run in it that
reported last.

Progress, restarts and their reasons go to stderr, as those of finetune run. It only reads (Pod logs and the state of
the Job, or status.json), so Ctrl-C has no effect on the run. It ends with the Job or the run, and with a run also after
{follow.MAX_SILENCE / 60:g} minutes without news.
""",
    flags={
        "--namespace, -n NAME": "of the Job; default: that of the kubeconfig's context",
        "--context NAME": "of the kubeconfig; default: the current one",
    },
    examples={
        "finetune-5b8f --namespace ml": "a Job",
        "gs://my-bucket/trained/runs/flowers-0a1b2c3d4e": "a run in a bucket",
        "gs://my-bucket/trained": "the newest run in a bucket",
        "./trained": "the newest run in a folder",
    },
    exit_codes={
        "0 to 75": "that of the Job or the run: see finetune help",
        SettingsError.exit_code: "also: there is no such Job, or no kubeconfig",
        DataError.exit_code: "also: there is no such run",
        AccessError.exit_code: "also: no permission to read it",
        UnavailableError.exit_code: "also: no news of the run, or the cluster is unreachable",
        follow.INTERRUPTED: "Ctrl-C",
    },
)


def read_target(arguments: Sequence[str]) -> follow.Target:
    """Parse the target to follow.

    Raises:
        SettingsError: the target is missing or not a location, or a flag is unknown. The message has all mistakes.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--namespace", "-n", nargs="?", const="")
    parser.add_argument("--context", nargs="?", const="")
    parsed, unknown = parser.parse_known_args(arguments)
    flags = ("--namespace", "--context")
    mistakes = [f"{flag}: needs a value" for flag in flags if vars(parsed)[flag[2:]] == ""]
    mistakes += [f"unknown argument {argument!r}{did_you_mean(argument, flags)}" for argument in unknown]
    name = (parsed.name or "").removeprefix("job/").removeprefix("job.batch/")
    is_run = False
    if name:
        try:
            is_run = name == parsed.name and (find_run(name) is not None or "/" in name)
        except ValueError as error:
            mistakes.append(str(error))
    else:
        mistakes.append("give a Job, or the URI or folder of a run")
    if mistakes:
        raise SettingsError("; ".join(mistakes), remedy=f"usage: finetune watch {MANUAL.usage[0]}, or a run's URI")
    return follow.Target(name, parsed.namespace, parsed.context, is_run)


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: see `read_target`.
    """
    return Command(partial(_execute, read_target(arguments)))


def _execute(target: follow.Target, _: Progress) -> int:
    return follow.follow(target)
