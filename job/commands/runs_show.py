"""``finetune runs show``: what is known of a run."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.commands.tables import lines, value_of
from job.config.load import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.documents import Document

MANUAL = Manual(
    summary="Show a run: its data, metrics, gate, and the settings that differ from their defaults.",
    usage=("RUN [--json]", SETTINGS_USAGE),
    description="""\
RUN is OUTPUT_URI/runs/ID, of which a unique beginning of ID will do, or OUTPUT_URI/latest; with --output.uri OUTPUT_URI
the ID alone. Of an unfinished run the state, the progress and the settings are shown. Five small files are read.
finetune report RUN makes a page with all of it.
""",
    flags={"--json": "print one JSON document"},
    examples={
        "gs://my-bucket/trained/latest": "the run that latest.json names",
        "flowers-0a --output.uri gs://my-bucket/trained": "by the beginning of its ID",
    },
    exit_codes={
        0: "shown",
        2: "the call is wrong, or several runs begin with this ID",
        3: "there is no such run",
        5: "no permission",
        20: "the store did not respond",
    },
    settings=("output", "storage", "report"),
)


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid.
    """
    found = divide(arguments, command="runs show", flags={"--json": ""}, places=("RUN",))
    settings = load_settings(found.settings).settings
    as_json = "--json" in found.flags
    return Command(partial(_execute, settings, found.places[0], as_json=as_json), settings.log)


def _execute(settings: Settings, name: str, progress: Progress, *, as_json: bool) -> int:
    from job import storage
    from job.runs.facts import read_facts
    from job.runs.named_run import find_run

    with showing(progress):
        run = find_run(name, storage.opener(settings.storage), settings.output.uri)
        facts = read_facts(run, settings.report.gpu_price_per_hour)
    if as_json:
        write(json.dumps(facts.document(), indent=2, ensure_ascii=False))
        return 0
    write_line(facts.uri)
    for title, values in facts.groups().items():
        _print(title, {name: value for name, value in values.items() if title != "settings" or name in facts.changed})
    return 0


def _print(title: str, values: Document) -> None:
    rows = [(f"  {name}", value_of(value)) for name, value in values.items()]
    if rows:
        write_line("")
        for line in lines((title, ""), rows):
            write_line(line)
