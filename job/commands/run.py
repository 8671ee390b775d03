"""``finetune run``: the job itself. Subscribes the event listeners and runs the pipeline."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from job.commands.command import Command, check_machine, show_bars
from job.commands.manual import SETTINGS_USAGE, Manual, all_codes, all_groups
from job.config.load import load_settings
from job.errors import PeerLostError
from job.runtime import cluster, signals
from job.runtime.watchdog import StallWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.load import Loaded
    from job.errors import StallError
    from job.observability.progress import Progress

MANUAL = Manual(
    summary="Train, evaluate, export and publish: the job itself.",
    usage=(SETTINGS_USAGE, "--help GROUP      the settings of one group: input, output, …"),
    description="""\
It takes labelled images, a folder for each class under --input.uri (or a CSV or JSON Lines manifest), and publishes the
model with its metrics under --output.uri, in runs/ID; latest.json names the newest run that passed its quality gate.
The log goes to stderr: sentences on a terminal, else one JSON object a line.

A start with the same data and settings resumes the run where it was stopped, or finds it published. Ctrl-C and SIGTERM
save the state. How long a run takes depends on the images: the log and status.json report the time that remains.
""",
    examples={
        "--output.uri ./trained": "the built-in demo pictures, to a folder here",
        "--input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained": "your own, from and to a bucket",
        "--help model": "the settings of the model",
    },
    exit_codes=all_codes(),
    settings=all_groups(),
)


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they are invalid.
    """
    loaded = load_settings(arguments, required=("output.uri",))
    check_machine(loaded.settings)
    return Command(partial(_execute, loaded), loaded.settings.log)


def _execute(loaded: Loaded, progress: Progress) -> int:
    show_bars(progress)
    from job import pipeline
    from job.observability.kube_events import EventRecorder
    from job.observability.kubeflow import trainer_listener

    if not loaded.settings.workers.index:  # worker 0 reports for all
        if loaded.settings.events.enabled:
            progress.subscribe(EventRecorder(loaded.settings.events, loaded.settings.run))
        if listener := trainer_listener():
            progress.subscribe(listener)
    seconds = 60 * loaded.settings.device.stall_minutes
    progress.subscribe(StallWatch(seconds, save=signals.save, last_words=partial(_stalled, progress)))
    try:
        pipeline.run(loaded, progress)
    except PeerLostError as error:
        if signals.received():
            raise signals.stopped_error() from error
        progress.event("workers.lost", severity="warning", message=error.message, note="this worker starts again")
        progress.close()
        cluster.reexecute()
    finally:
        cluster.remove_cache_folder()
    return 0


def _stalled(progress: Progress, error: StallError) -> None:
    progress.event("run.failed", severity="error", **error.facts)
