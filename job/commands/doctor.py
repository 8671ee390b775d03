"""``finetune doctor``: checks what a run with these settings needs of the machine and of its stores, one line each."""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from job.commands.command import Command, write, write_line
from job.commands.doctor_checks import GROUPS
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config import environment
from job.config.load import load_settings
from job.errors import SettingsError
from job.runtime import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runtime.checks import Finding

SECONDS = 10.0
"""Default time limit of a check. Failing requests are retried for half of it."""

MANUAL = Manual(
    summary="Check what a run needs of this machine and of its stores, one line each with the remedy.",
    usage=("[--only GROUP,…] [--timeout SECONDS] [--json]", SETTINGS_USAGE),
    description="""\
It takes the settings of finetune run, and checks software, GPU, memory, disks, credentials, buckets and weights. A
check for which nothing is given is skipped. In --output.uri an object named .finetune-doctor-… is created, overwritten,
read and deleted; the input is only read, and nothing is trained. The lines go to stdout. It takes seconds; up to two
minutes with a GPU, on which TensorFlow computes.

The exit code is that of the worst failure: first those that every retry repeats (2, 3, 5), then the others (1, 4, 20),
among each the lowest. A warning is no failure.
""",
    flags={
        "--only GROUP,…": f"only these groups of checks: {', '.join(GROUPS)}",
        "--timeout SECONDS": f"time limit of each check, {SECONDS:g} by default; requests are retried for half of it",
        "--json": "print a list of {check, verdict, detail, remedy, exit_code} instead of the lines",
    },
    examples={
        "--input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained": "what a run on the CPU needs",
        "--output.uri gs://my-bucket/trained --only storage": "the permissions on a bucket",
        "--device.require_gpu --only gpu,machine": "a machine with a GPU",
    },
    exit_codes={
        0: "nothing failed",
        1: "a bug in a check",
        2: "a setting, a certificate or the installation is wrong, or the store ignores preconditions",
        3: "no bucket, no input or no weights",
        4: "no usable GPU where one is required",
        5: "no permission, or no credentials",
        20: "a server is unreachable, or a check did not end in time",
        75: "stopped by a signal",
    },
    settings=("input", "output", "storage", "model", "device", "cache"),
)


class Options(NamedTuple):
    """What the command does with the checks.

    Attributes:
        as_json: print JSON.
        only: the groups to carry out.
        seconds: time limit of each check.
    """

    as_json: bool
    only: frozenset[str]
    seconds: float


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(message, remedy="finetune doctor --help explains its options")


def _only(text: str) -> frozenset[str]:
    names = frozenset(text.split(","))
    if unknown := sorted(names.difference(GROUPS)):
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(GROUPS)}")
    return names


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds between 0 and 3600")
    return seconds


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they are invalid, or an option is.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", type=_only, default=frozenset(GROUPS))
    parser.add_argument("--timeout", type=_seconds, default=SECONDS)
    parsed, flags = parser.parse_known_args(arguments)
    settings = load_settings(flags).settings
    return Command(partial(_execute, settings, Options(parsed.json, parsed.only, parsed.timeout)), settings.log)


def _execute(settings: Settings, options: Options, _: Progress) -> int:
    if environment.get("KUBERNETES_SERVICE_HOST") is None:
        # Where nothing has credentials, google-auth looks for Google's metadata server, by default for 12 s.
        environment.set_default("GCE_METADATA_TIMEOUT", "1")
    groups = [group for name in GROUPS if name in options.only for group in GROUPS[name](settings, options.seconds)]
    report = _Report(max(len(check.name) for group in groups for check in group.checks), lines=not options.as_json)
    code = checks.worst(checks.carry_out(groups, options.seconds, report.add))
    report.end(code)
    return code


class _Report:
    """Prints each finding as soon as it is known, or all of them as JSON at the end.

    Args:
        width: of the longest name of a check.
        lines: print lines.
    """

    def __init__(self, width: int, *, lines: bool) -> None:
        self._width = width
        self._lines = lines
        self._found: list[tuple[str, Finding]] = []
        self._remedies: set[str] = set()

    def add(self, name: str, finding: Finding) -> None:
        """Report a finding. A remedy is printed once, under the first finding that has it."""
        self._found.append((name, finding))
        if not self._lines:
            return
        write_line(f"{finding.verdict:8} {name:{self._width}}  {finding.detail}")
        if finding.remedy and finding.remedy not in self._remedies:
            self._remedies.add(finding.remedy)
            write_line(f"{'':8} {'':{self._width}}  -> {finding.remedy}")

    def end(self, code: int) -> None:
        """Report the verdict on all of them."""
        if self._lines:
            counts = {verdict: sum(found.verdict == verdict for _, found in self._found) for verdict in _VERDICTS}
            described = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
            write_line(f"{'not ready' if code else 'ready'}: {described}; exit code {code}")
            return
        rows = [
            {
                "check": name,
                "verdict": finding.verdict,
                "detail": finding.detail,
                "remedy": finding.remedy,
                "exit_code": finding.exit_code,
            }
            for name, finding in self._found
        ]
        write(json.dumps(rows, indent=2))


_VERDICTS = ("failed", "warning", "skipped", "ok")
