"""``finetune runs promote``: point latest.json to a run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from job.commands.arguments import divide
from job.commands.command import Command, showing, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress

MANUAL = Manual(
    summary="Point latest.json to a run: a rollback, or the release of a run.",
    usage=("RUN --why TEXT [--pin | --unpin] [--by NAME]", SETTINGS_USAGE),
    description="""\
RUN is named as in runs show, and must be published and whole: every file is read and compared with its checksum, as
finetune verify does. A run that failed its gate can be promoted. latest.json records who promoted the run, when and
why; it is replaced only at the generation that was read first, so that nobody else's change is overwritten.

A pinned latest.json is not moved by later runs, but by another promotion. Without --pin and --unpin it stays pinned
or not as it is.
""",
    flags={
        "--why TEXT": "the reason, recorded in latest.json",
        "--pin": "later publications leave latest.json alone",
        "--unpin": "the next new run that passes its gate moves latest.json",
        "--by NAME": "who promotes it; default: USER@HOST of this process",
    },
    examples={
        "gs://my-bucket/trained/runs/flowers-0a1b2c3d4e --pin --why 'rollback: tulips are missed'": "and keep it there",
        "gs://my-bucket/trained/latest --unpin --why 'fixed'": "let later runs move it again",
    },
    exit_codes={
        0: "promoted",
        2: "the call is wrong, or several runs begin with this ID",
        3: "there is no such run, or it is not published or not whole",
        5: "no permission",
        20: "the store did not respond",
        75: "latest.json was moved meanwhile, and is left so",
    },
    settings=("output", "storage"),
)


class Options(NamedTuple):
    """How a run is promoted.

    Attributes:
        run: its name.
        why: the reason.
        by: who promotes it; empty: the user of this process.
        pinned: None: as it is.
    """

    run: str
    why: str
    by: str
    pinned: bool | None


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid.
    """
    flags = {"--why": "'rollback: tulips are missed'", "--by": "alice", "--pin": "", "--unpin": ""}
    found = divide(arguments, command="runs promote", flags=flags, places=("RUN",))
    settings = load_settings(found.settings).settings
    if not (why := found.flags.get("--why", "").strip()):
        raise SettingsError("--why is missing", remedy="give the reason, which latest.json records: --why TEXT")
    if {"--pin", "--unpin"} <= found.flags.keys():
        raise SettingsError("--pin and --unpin are both given", remedy="give one of them")
    pinned = True if "--pin" in found.flags else False if "--unpin" in found.flags else None
    options = Options(found.places[0], why, found.flags.get("--by", ""), pinned)
    return Command(partial(_execute, settings, options), settings.log)


def _execute(settings: Settings, options: Options, progress: Progress) -> int:
    from job import storage
    from job.runs import promotion
    from job.runs.named_run import find_run

    with showing(progress):
        open_output = partial(storage.open_output, settings=settings.storage)
        run = find_run(options.run, open_output, settings.output.uri)
        by = options.by or promotion.current_user()
        latest = promotion.promote(run, progress, by=by, why=options.why, pinned=options.pinned)
    note = "later runs leave it there" if latest.pinned else "the next new run that passes its gate moves it"
    write_line(f"{run.output.uri_of('latest.json')} names {latest.run_id}; {note}")
    return 0
