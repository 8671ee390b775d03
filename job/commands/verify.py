"""``finetune verify``: check that a published run is as it was published."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.verification import Verification

MANUAL = Manual(
    summary="Check every file of a published run against its checksums.",
    usage=("RUN [--json]", SETTINGS_USAGE),
    description="""\
RUN is the URI or folder of a run, OUTPUT_URI/runs/ID, or OUTPUT_URI/latest. _SUCCESS must name manifest.json, each file
must have the size, crc32c and sha256 that manifest.json has, and the subjects of provenance.json must be these files.
Files that manifest.json does not list are reported, and are no failure.

It reads every file once, in pieces, several at a time, and writes nothing. A line for each file goes to stdout. It
needs no TensorFlow. Nothing is signed: who can replace all files of a run is not noticed.
""",
    flags={"--json": "print one JSON document instead of the lines"},
    examples={
        "gs://my-bucket/trained/latest": "the newest run that passed its gate",
        "./trained/runs/flowers-0a1b2c3d4e --json": "for a program",
    },
    exit_codes={
        0: "every file is as published",
        2: "the call is wrong",
        3: "a file differs, and the first is named; or there is no such run",
        5: "no permission",
        20: "the store did not respond",
    },
    settings=("storage",),
)


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid.
    """
    found = divide(arguments, command="verify", flags={"--json": ""}, places=("RUN",))
    settings = load_settings(found.settings).settings
    as_json = "--json" in found.flags
    return Command(partial(_execute, settings, found.places[0], as_json=as_json), settings.log)


def _execute(settings: Settings, run: str, progress: Progress, *, as_json: bool) -> int:
    from job import storage
    from job.runs.published import open_published
    from job.runs.verification import verify

    with showing(progress):
        found = verify(open_published(run, storage.opener(settings.storage)), progress)
    if as_json:
        write(json.dumps(found.document(), indent=2))
    else:
        _print_table(found)
    found.check()
    return 0


def _print_table(found: Verification) -> None:
    problems: dict[str, list[str]] = {}
    for difference in found.differences:
        problems.setdefault(difference.name, []).append(difference.detail)
    names = ["_SUCCESS", "manifest.json", *found.files]
    for name in names:
        size = f"{found.files[name]:,} bytes" if name in found.files else ""
        for detail in problems.get(name, [size]):
            write_line(f"{'differs' if name in problems else 'ok':9}{name}  {detail}".rstrip())
    for name in found.unlisted:
        write_line(f"unlisted {name}")
    if not found.differences:
        provenance = "" if found.provenance else "; it has no provenance.json"
        total = sum(found.files.values())
        write_line(f"{found.run_uri}: {len(found.files)} files, {total:,} bytes, as published{provenance}")
