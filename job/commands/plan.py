"""``finetune plan``: whether a run would have anything to do, before a GPU is paid for."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from job.commands.arguments import divide
from job.commands.command import Command, check_weights, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.documents import Document

WORK = 10
"""The exit code if there is work."""

MANUAL = Manual(
    summary="Find out whether a run would have anything to do, before a GPU is paid for.",
    usage=("--output.uri URI [--json]", "--output.uri URI --create-job CRONJOB", SETTINGS_USAGE),
    description="""\
It takes the settings of finetune run, lists the input as a run does, and looks up the run of these settings and data in
the output. A run that is not there, or unfinished, is work; one that is published, or that a process works on, is none.
No picture is read, nothing is written to the output, and neither a GPU nor TensorFlow is needed. It takes as long as
listing the input.

With --create-job it starts that work, from within a Pod: it creates a Job from the template of a CronJob, as kubectl
create job --from does, and ends with 0. The Job's name follows from the run: if it exists, the run is under way or was
tried, and nothing is created. The chart's cronjob.plan does this on a schedule.
""",
    flags={
        "--json": "print one JSON document: work, run_id, run_uri, state (new, unfinished, under_way, published), "
        "holder, published_at, gate_passed, job",
        "--create-job CRONJOB": "create a Job from this CronJob of the Pod's namespace if there is work; end with 0",
    },
    examples={
        "--input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained": "is there anything to train?",
        "--input.uri ./flowers --output.uri ./trained --json": "for a program",
    },
    exit_codes={
        0: "nothing to do; with --create-job also: a Job is created, or exists",
        WORK: "there is work",
        2: "a setting is wrong; with --create-job also: no such CronJob, or the API server rejects the Job",
        3: "the input cannot be listed as data, or a document of the run is unreadable: a run would end with it, too",
        5: "no permission, for a store or the API server",
        20: "a store or the API server did not respond",
        75: "stopped by a signal",
    },
    settings=("input", "output", "storage", "run"),
)


class Options(NamedTuple):
    """The flags that are no settings.

    Attributes:
        as_json: print JSON.
        cronjob: the CronJob to create a Job from; None: create none.
    """

    as_json: bool
    cronjob: str | None


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they or the flags are invalid.
    """
    found = divide(arguments, command="plan", flags={"--json": "", "--create-job": "finetune"}, places=())
    settings = load_settings(found.settings, required=("output.uri",)).settings
    check_weights(settings)
    options = Options("--json" in found.flags, found.flags.get("--create-job"))
    return Command(partial(_execute, settings, options), settings.log)


def _execute(settings: Settings, options: Options, progress: Progress) -> int:
    from job import storage
    from job.phases.data import list_images
    from job.runs.identity import identify
    from job.runs.plan import plan

    device.ensure_temp_dir(settings.cache.dir)
    with showing(progress):
        open_store = storage.opener(settings.storage)
        listing = list_images(settings, open_store, progress)
        identity = identify(settings, open_store, listing.listed)
        found = plan(storage.open_output(settings.output.uri, settings.storage), settings, identity)
    progress.event("run.planned", message=found.message, **found.document())
    job = _start(options.cronjob, found.run_id, progress) if options.cronjob and found.is_work else None
    if options.as_json:
        write(json.dumps(found.document() | {"job": job}, indent=2, ensure_ascii=False))
    elif not options.cronjob:  # in a Pod, the log has it
        write_line(found.message)
    return WORK if found.is_work and not options.cronjob else 0


def _start(cronjob: str, run_id: str, progress: Progress) -> Document:
    """Create the Job of a run, and report it."""
    from job.watch.cronjob import start

    job = start(cronjob, run_id)
    if job.created:
        progress.event("job.created", job=job.name, cronjob=cronjob, run_id=run_id)
    else:
        message = f"the Job {job.name} exists: the run is under way, or was tried"
        remedy = (
            f"if it has failed, remove the cause, then kubectl delete job {job.name}: the next plan creates it again"
        )
        progress.event("job.exists", severity="warning", message=message, remedy=remedy, job=job.name, run_id=run_id)
    return {"name": job.name, "created": job.created}
