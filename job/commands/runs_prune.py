"""``finetune runs prune``: delete old runs of an output."""

from __future__ import annotations

import datetime as dt
import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.commands.tables import age, counted, lines, size_of, time_of, whole_number
from job.config.load import load_settings
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.retention import Selection
    from job.storage import Store

MANUAL = Manual(
    summary="Delete old runs of an output; without --delete, show what would be deleted.",
    usage=("OUTPUT_URI [--keep N] [--older-than AGE] [--unfinished] [--delete] [--json]", SETTINGS_USAGE),
    description="""\
A published run is deleted if it is not among the newest N and older than AGE; one of both may be left out. Never
deleted are the newest published run, the run that latest.json names, a run that a process works on, and what cannot be
read. Unfinished runs are kept too, since a start resumes them: --unfinished deletes those that have not changed for
AGE.

_SUCCESS is deleted first, then latest.json is read again, then the rest is deleted: a prune that is interrupted leaves
nothing that looks published, and the next one deletes what is left. The records of Jobs (jobs/) stay. Without --delete
nothing is written.
""",
    flags={
        "--keep N": "keep the newest N published runs",
        "--older-than AGE": "delete only what is older than 30d, 12h or 2w",
        "--unfinished": "include unfinished runs, by --older-than",
        "--delete": "delete them",
        "--json": "print one JSON document",
    },
    examples={
        "gs://my-bucket/trained --keep 10 --older-than 30d": "what would be deleted, and its bytes",
        "gs://my-bucket/trained --keep 10 --older-than 30d --delete": "delete it",
    },
    exit_codes={
        0: "shown or deleted",
        2: "the call is wrong",
        3: "there is no output, or latest.json is unreadable",
        5: "no permission",
        20: "the store did not respond; what was begun is finished by the next call",
    },
    settings=("storage", "checkpoint"),
)


class Options(NamedTuple):
    """What is deleted, and how it is shown."""

    keep: int | None
    older_than: dt.timedelta | None
    unfinished: bool
    delete: bool
    as_json: bool


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid.
    """
    flags = {"--keep": "10", "--older-than": "30d", "--unfinished": "", "--delete": "", "--json": ""}
    found = divide(arguments, command="runs prune", flags=flags, places=("OUTPUT_URI",))
    settings = load_settings(found.settings).settings
    given = found.flags
    options = Options(
        keep=whole_number("--keep", given["--keep"]) if "--keep" in given else None,
        older_than=age("--older-than", given["--older-than"]) if "--older-than" in given else None,
        unfinished="--unfinished" in given,
        delete="--delete" in given,
        as_json="--json" in given,
    )
    if options.keep is None and options.older_than is None:
        raise SettingsError("neither --keep nor --older-than is given", remedy="as in --keep 10 --older-than 30d")
    if options.unfinished and options.older_than is None:
        raise SettingsError(
            "--unfinished needs --older-than: an unfinished run may be resumed", remedy="as in --older-than 30d"
        )
    return Command(partial(_execute, settings, found.places[0], options), settings.log)


def _execute(settings: Settings, output_uri: str, options: Options, progress: Progress) -> int:
    from job import storage
    from job.runs.inventory import read_inventory
    from job.runs.retention import Rule, select

    output = storage.open_output(output_uri, settings.storage)
    rule = Rule(keep=options.keep, older_than=options.older_than, unfinished=options.unfinished)
    takeover = settings.checkpoint.takeover
    with showing(progress):
        inventory = read_inventory(output, progress)
        now = dt.datetime.now(dt.UTC)
        selection = select(output, inventory, rule, progress, takeover=takeover, now=now)
        kept_by_now = _delete(output, selection, takeover, progress) if options.delete else {}
    deleted = [run for run in selection.candidates if run.run.run_id not in kept_by_now]
    kept = selection.kept | kept_by_now
    total = sum(run.bytes for run in deleted)
    if options.as_json:
        document: dict[str, Any] = {"output_uri": output.uri, "deleted": options.delete, "bytes": total}
        write(json.dumps({**document, "runs": [run.document() for run in deleted], "kept": kept}, indent=2))
        return 0
    rows = [[one.run.run_id, one.run.state, time_of(one.at), size_of(one.bytes)] for one in deleted]
    rows += [[run_id, "kept", "", f"{reason}"] for run_id, reason in sorted(kept.items())]
    for line in lines(("RUN", "STATE", "SINCE", "SIZE, OR WHY IT IS KEPT"), rows):
        write_line(line)
    done = "deleted" if options.delete else "would be deleted; --delete does it"
    write_line(f"{counted(len(deleted), 'run')}, {size_of(total)} {done}; {counted(len(kept), 'run')} kept")
    return 0


def _delete(output: Store, selection: Selection, takeover: float, progress: Progress) -> dict[str, str]:
    """Delete the candidates, the oldest first; return ID -> why one was kept in the end."""
    from job.runs.deletion import KeptError, delete_run

    kept = {}
    with progress.phase("delete", len(selection.candidates), "runs") as phase:
        for candidate in selection.candidates:
            try:
                delete_run(output, candidate, takeover=takeover)
            except KeptError as error:
                kept[candidate.run.run_id] = str(error)
            else:
                progress.event("run.deleted", run_uri=output.uri_of(f"runs/{candidate.run.run_id}"))
            phase.advance()
    return kept
