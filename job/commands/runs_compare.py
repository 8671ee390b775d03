"""``finetune runs compare``: settings, data and metrics of runs side by side."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.commands.tables import NONE, lines, value_of
from job.config.load import load_settings
from job.config.settings import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.facts import Facts

MANUAL = Manual(
    summary="Compare runs: settings, data and metrics side by side.",
    usage=("RUN RUN... [--all] [--json]", SETTINGS_USAGE),
    description="""\
A RUN is named as in runs show; an ID alone, or its beginning, is one of the output of the first RUN. There is a column
for each run and a row for each value. Of the settings and the data only what differs is shown.
""",
    flags={
        "--all": "also the settings and data that do not differ",
        "--json": "print one JSON document, with all values",
    },
    examples={
        "gs://my-bucket/trained/latest flowers-0a1b2c3d4e": "a new run beside the one that is served",
        "first second third --output.uri ./trained --all": "three runs, with all settings",
    },
    exit_codes={
        0: "compared",
        2: "the call is wrong, or several runs begin with an ID",
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
    flags = {"--all": "", "--json": ""}
    found = divide(arguments, command="runs compare", flags=flags, places=("RUN", "RUN"), more=True)
    settings = load_settings(found.settings).settings
    with_equal, as_json = "--all" in found.flags, "--json" in found.flags
    execute = partial(_execute, settings, found.places, with_equal=with_equal, as_json=as_json)
    return Command(execute, settings.log)


def _execute(settings: Settings, names: Sequence[str], progress: Progress, *, with_equal: bool, as_json: bool) -> int:
    from job import storage
    from job.runs.facts import read_facts
    from job.runs.named_run import find_run

    open_store = storage.opener(settings.storage)
    with showing(progress):
        first = find_run(names[0], open_store, settings.output.uri)
        others = [
            find_run(name, open_store, first.output.uri if re.fullmatch(NAME_PATTERN, name) else "")
            for name in names[1:]
        ]
        facts = [read_facts(run, settings.report.gpu_price_per_hour) for run in (first, *others)]
    if as_json:
        write(json.dumps({"runs": [one.document() for one in facts]}, indent=2, ensure_ascii=False))
    else:
        for line in table(facts, with_equal=with_equal):
            write_line(line)
    return 0


def table(facts: Sequence[Facts], *, with_equal: bool) -> list[str]:
    """Return the lines of the comparison.

    Args:
        facts: of the runs.
        with_equal: include settings and data that are equal in all runs.
    """
    rows, equal = [], 0
    for title in facts[0].groups():
        groups = [one.groups()[title] for one in facts]
        found = []
        for name in dict.fromkeys(name for group in groups for name in group):
            values = [group.get(name) for group in groups]
            if title in ("settings", "data") and all(value == values[0] for value in values) and not with_equal:
                equal += 1
            elif (title, name) != ("run", "id"):
                found.append([f"  {name}", *(value_of(value) or NONE for value in values)])
        if found:
            rows += [[title, *(" " for _ in facts)], *found]
    made = list(lines(["", *(str(one.run["id"]) for one in facts)], rows))
    return [*made, f"{equal} values of settings and data are equal; --all shows them"] if equal else made
