"""``finetune runs jobs``: a table of the Kubernetes Jobs of an output."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.commands.tables import lines, time_of, whole_number
from job.config.load import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.job_list import ListedJob

MANUAL = Manual(
    summary="List the Kubernetes Jobs of an output, with their starts.",
    usage=("OUTPUT_URI [--limit N] [--json]", SETTINGS_USAGE),
    description="""\
A line for each record jobs/UID.json, the Job that started last first: its run, the number of its starts, when, where
and how the last one ended, and its GPU hours. A start without an end runs, or was killed. Records outlive the Jobs,
their Pods and pruned runs.
""",
    flags={"--limit N": "the first N", "--json": "print one JSON document, with all starts"},
    examples={"gs://my-bucket/trained": "all Jobs", "./trained --limit 5 --json": "for a program"},
    exit_codes={
        0: "listed",
        2: "the call is wrong",
        5: "no permission",
        20: "the store did not respond",
    },
    settings=("storage",),
)

_HEADER = ("JOB", "NAMESPACE", "RUN", "ATTEMPTS", "LAST START", "NODE", "OUTCOME", "GPU H", "UID")


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid.
    """
    found = divide(arguments, command="runs jobs", flags={"--limit": "20", "--json": ""}, places=("OUTPUT_URI",))
    settings = load_settings(found.settings).settings
    limit = whole_number("--limit", found.flags["--limit"]) if "--limit" in found.flags else None
    as_json = "--json" in found.flags
    return Command(partial(_execute, settings, found.places[0], limit, as_json=as_json), settings.log)


def _execute(settings: Settings, output_uri: str, limit: int | None, progress: Progress, *, as_json: bool) -> int:
    from job import storage
    from job.runs.job_list import read_jobs

    with showing(progress):
        output = storage.opener(settings.storage)(output_uri)
        jobs = read_jobs(output)[:limit]
    if as_json:
        write(json.dumps({"output_uri": output.uri, "jobs": [job.document() for job in jobs]}, indent=2))
        return 0
    for line in lines(_HEADER, [_cells(job) for job in jobs]):
        write_line(line)
    return 0


def _cells(job: ListedJob) -> list[str]:
    record = job.record
    if record is None:
        return ["", "", "", "", "", "", job.detail, "", job.uid]
    return [
        record.name,
        record.namespace,
        record.run_id or "",
        str(len(record.attempts)),
        time_of(job.started_at),
        str(job.last.get("node") or ""),
        job.outcome(),
        f"{job.gpu_hours():.2f}",
        job.uid,
    ]
