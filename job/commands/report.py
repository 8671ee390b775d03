"""``finetune report``: write the report of a published run into a folder here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, writing_into
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.load import Loaded
    from job.observability.progress import Progress
    from job.storage import Store

FOLDER = Path("report")

MANUAL = Manual(
    summary="Write the report of a published run, a page with charts, into a folder here.",
    usage=(f"RUN [--out DIR] {SETTINGS_USAGE}",),
    description=f"""\
RUN is the URI or folder of a published run, or OUTPUT_URI/latest. The page is made from the files of the run alone, in
seconds; nothing is written to the run, whose manifest.json has the checksums of its own report. So it serves runs that
were published without a report, and a page with other settings.

It writes index.html, which needs no other file, and its charts as PNG files, over those that are in DIR; the default is
{FOLDER}/ in the current folder. It prints the path of the page to stdout.
""",
    flags={"--out DIR": f"the folder, created if it is missing; default: {FOLDER}"},
    examples={
        "gs://my-bucket/trained/latest": "the run that latest.json names",
        "./trained/runs/flowers-0a1b2c3d4e --out flowers": "a run in a folder",
        "./trained/latest --report.gpu_price_per_hour 2.48": "with the cost of the run",
    },
    exit_codes={
        0: "written",
        2: "an argument is wrong",
        3: "there is no such published run, or its files are unreadable",
        5: "no permission to read the run, or to write here",
        20: "the store did not respond",
    },
    settings=("report", "storage"),
)


def parse(arguments: Sequence[str]) -> Command:
    """Parse the run, the folder and the settings.

    Raises:
        SettingsError: one of them is missing or invalid.
    """
    found = divide(arguments, command="report", flags={"--out": "report"}, places=("RUN",))
    loaded = load_settings(found.settings)
    run, folder = found.places[0], Path(found.flags.get("--out", FOLDER))
    return Command(partial(_execute, run, folder, loaded), loaded.settings.log)


def _execute(location: str, folder: Path, loaded: Loaded, progress: Progress) -> int:
    from job import storage
    from job.evaluation.report.page import PAGE, recorded_settings, render
    from job.runs.published import open_published

    with showing(progress), progress.phase("report", None, ""):
        run = open_published(location, storage.opener(loaded.settings.storage))
        read = partial(_read, run)
        given = {
            name.partition(".")[2]: getattr(loaded.settings.report, name.partition(".")[2])
            for name, origin in loaded.origins.items()
            if name.startswith("report.") and origin != "default"
        }
        files = render(read, recorded_settings(read).model_copy(update=given))
        with writing_into(folder):
            for name, data in files.items():
                (folder / Path(name).name).write_bytes(data)
    write(str(folder / Path(PAGE).name))
    return 0


def _read(run: Store, name: str) -> bytes | None:
    found = run.read(name)
    return found[0] if found else None
