"""``finetune run``: the job itself. Subscribes the event listeners and runs the pipeline."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from job.commands.command import Command, check_machine, settings_help, show_bars
from job.config.load import load_settings
from job.runtime import signals
from job.runtime.watchdog import StallWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.load import Loaded
    from job.errors import StallError
    from job.observability.progress import Progress

SUMMARY = "Train, evaluate, export and publish: the job itself."


def help_text(topic: str = "") -> str:
    """Return what ``finetune run --help`` prints."""
    return settings_help("run", SUMMARY, topic)


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they are invalid.
    """
    loaded = load_settings(arguments, required=("output.uri",))
    check_machine(loaded.settings)
    return Command(partial(_execute, loaded), loaded.settings.log)


def _execute(loaded: Loaded, progress: Progress) -> int:
    from job import pipeline
    from job.observability.kube_events import EventRecorder

    show_bars(progress)
    if loaded.settings.events.enabled:
        progress.subscribe(EventRecorder(loaded.settings.events, loaded.settings.run))
    seconds = 60 * loaded.settings.device.stall_minutes
    progress.subscribe(StallWatch(seconds, save=signals.save, last_words=partial(_stalled, progress)))
    pipeline.run(loaded, progress)
    return 0


def _stalled(progress: Progress, error: StallError) -> None:
    progress.event("run.failed", severity="error", **error.facts)
